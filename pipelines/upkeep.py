"""What is done with a root beside runs: looking at its books, failed work once more, room given back."""

from collections.abc import Iterator

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import encoders, manifest, plan, receipts
from rayramid.pipelines.ledger import Ledger
from rayramid.pipelines.outcomes import outcomes_of
from rayramid.pipelines.spec import JOBS

RESULT_FOLDERS = ("clips", "scores", "captions", "text", "latents")
# An upload that has not ended by then has no writer any more.
UPLOAD_S = 24 * 3600.0


def status(root: str) -> list[Ledger]:
    """The ledgers over everything that was ever planned under a root."""
    _check_planned(root)
    return [outcomes_of(root, job, plan.read_plans(root, job)).ledger() for job in JOBS]


def retry(root: str) -> int:
    """Plan all failed items anew, for the next run to do; their number."""
    _check_planned(root)
    count = 0
    for job in JOBS:
        plans = plan.read_plans(root, job)
        waiting = set(plans.left(receipts.committed(root, job))["item_id"].to_pylist())
        failed = {failure.item_id for failure in outcomes_of(root, job, plans).failures} - waiting
        if not failed:
            continue
        items = {item.item_id: item for item in plan.planned_items(root, job) if item.item_id in failed}
        generation = 1 + max(shard.generation for shard in plans.shards)
        # One to a shard: what failed once should not hold up anything else.
        plan.write_plans(root, job, [[item] for _, item in sorted(items.items())], generation)
        count += len(failed)
    return count


def gc(root: str) -> int:
    """Delete what nothing can use any more, whoever is at work; the number of files.

    These are files of shards that another attempt committed, notes of attempts at committed shards, encoders that were
    made and not recorded, and what was left of uploads a day ago.
    """
    _check_planned(root)
    committed: dict[str, str] = {}
    for job in JOBS:
        committed |= receipts.read_receipts(root, job, lambda receipt: receipt.file)
    urls = [*_outdated(root, committed), *_notes(root, committed), *_unrecorded(root)]
    for url in urls:
        storage.delete(url)
    return len(urls) + storage.sweep(root, UPLOAD_S)


def _check_planned(root: str) -> None:
    if next(storage.list_files(storage.join(root, "_plan")), None) is None:
        raise UserError(f"{root}: nothing was planned here; start with `rayramid data run SPEC`")


def _outdated(root: str, committed: dict[str, str]) -> Iterator[str]:
    for folder in RESULT_FOLDERS:
        for url in storage.list_files(storage.join(root, folder), ".parquet"):
            file = committed.get(url.rpartition("/")[2].rpartition("-")[0])
            if file is not None and file != storage.relative(root, url):
                yield url


def _notes(root: str, committed: dict[str, str]) -> Iterator[str]:
    for url in storage.list_files(storage.join(root, "_attempts"), ".json"):
        if url.split("/")[-2] in committed:
            yield url


def _unrecorded(root: str) -> Iterator[str]:
    for which in ("vae", "text"):
        # Until one is recorded, any of them may still become the dataset's.
        recorded = encoders.made(root, which)
        if recorded is None:
            continue
        used = {recorded.url} | {str(version[which]["url"]) for version in manifest.read_all(root)}
        folder = storage.join(root, "models", which)
        for url in storage.list_files(folder):
            if f"models/{which}/{storage.relative(folder, url).split('/')[0]}" not in used:
                yield url
