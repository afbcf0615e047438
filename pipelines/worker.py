"""One shard from plan to receipt: the only place where a row's error becomes a failed row."""

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from rayramid.models import storage
from rayramid.models.media.errors import DecodeError
from rayramid.pipelines import receipts
from rayramid.pipelines.job import Job, Row, job_folder
from rayramid.pipelines.latents import OUTCOME, LatentWriter
from rayramid.pipelines.plan import Item, Shard
from rayramid.pipelines.receipts import Attempt, Failure, Receipt
from rayramid.pipelines.scratch import Scratch

log = logging.getLogger(__name__)

_MESSAGE_LENGTH = 500


@dataclass(frozen=True)
class Done:
    """An item with the rows it became, or with the reason why it failed."""

    item: Item
    rows: list[Row]
    failure: Failure | None = None


def work(root: str, run: str, job: Job, shard: Shard, items: Sequence[Item]) -> Receipt:
    """Do a shard unless it is committed: write exactly one file, then the receipt.

    Args:
        root: of the dataset.
        run: names the driver's run; deaths are counted within it.
        job: what to do with the rows.
        shard: from the plan.
        items: the shard's rows.
    """
    committed = receipts.find(root, shard.job, shard.shard_id)
    if committed is not None:
        return committed
    started = time.monotonic()
    attempt, killers = receipts.begin(root, shard.job, shard.shard_id, run)
    about = {"run": run, "job": shard.job, "shard": shard.shard_id}
    with closing(Scratch()) as scratch:
        path = scratch.path / "shard.parquet"
        done = _write(path, job, items, attempt, killers, about)
        file = f"{job_folder(shard.job, items[0].row)}/{shard.shard_id}-{attempt.number}.parquet"
        storage.upload(path, storage.join(root, file))
        receipt = Receipt(
            job=shard.job,
            shard_id=shard.shard_id,
            file=file,
            sha256=_sha256(path),
            bytes=path.stat().st_size,
            rows=done.rows,
            ok=len(items) - len(done.failures),
            attempt=attempt.number,
            seconds=round(time.monotonic() - started, 3),
            failures=tuple(done.failures),
            facts=done.facts,
        )
    log.info("shard written", extra={**about, "rows": receipt.rows, "ok": receipt.ok})
    return receipts.commit(root, receipt)


@dataclass
class _Written:
    rows: int
    failures: list[Failure]
    facts: dict[str, dict[str, object]]


def _write(
    path: Path, job: Job, items: Sequence[Item], attempt: Attempt, killers: set[str], about: Mapping[str, str]
) -> _Written:
    schema = pa.schema([*OUTCOME, *job.columns_out], metadata=job.columns_out.metadata)
    writer = LatentWriter(path, schema, job.rows_per_group(items[0].row))
    written = _Written(0, [], {})
    facts: list[tuple[str, Row]] = []
    for done in _all_done(job, items, attempt, killers, about):
        failure = done.failure
        if failure is None:
            rows = [{"item_id": done.item.item_id, "status": "ok", **row} for row in done.rows]
        else:
            written.failures.append(failure)
            # What is known of a failed row stays: its own columns as far as the result has them.
            known = {name: done.item.row.get(name) for name in job.columns_out.names}
            outcome = {"status": "failed", "error": failure.error, "message": failure.message}
            rows = [{**known, "item_id": done.item.item_id, **outcome}]
        writer.write(rows)
        facts += [(row["item_id"], {name: row[name] for name in job.facts} if failure is None else {}) for row in rows]
    places = writer.close()
    written.rows = len(places)
    for (item_id, fact), place in zip(facts, places, strict=True):
        if fact or place:
            written.facts[item_id] = {**fact, **{name: asdict(where) for name, where in place.items()}}
    return written


def _all_done(
    job: Job, items: Sequence[Item], attempt: Attempt, killers: set[str], about: Mapping[str, str]
) -> Iterator[Done]:
    # After a death rows go one by one, so that the next note names a single suspect.
    size = job.batch if attempt.number == 1 else 1
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        if size == 1 and batch[0].item_id in killers:
            message = f"its worker died {receipts.DEATHS_ALLOWED} times while working on it"
            yield Done(batch[0], [], _failure(batch[0], "Quarantined", message, attempt.number))
            continue
        attempt.note([item.item_id for item in batch])
        yield from _do(job, batch, attempt.number, about)
    attempt.note([])


def _do(job: Job, batch: Sequence[Item], attempt: int, about: Mapping[str, str]) -> Iterator[Done]:
    try:
        results = job([item.row for item in batch])
    except Exception as error:  # the documented boundary: whatever a row does, it fails alone
        if len(batch) > 1:
            for item in batch:
                yield from _do(job, [item], attempt, about)
            return
        log.warning("row failed", exc_info=True, extra={**about, "item": batch[0].item_id})
        kind = f"DecodeError: {error.reason}" if isinstance(error, DecodeError) else type(error).__name__
        yield Done(batch[0], [], _failure(batch[0], kind, str(error), attempt))
    else:
        for item, rows in zip(batch, results, strict=True):
            yield Done(item, rows)


def _failure(item: Item, error: str, message: str, attempt: int) -> Failure:
    name = str(item.row.get("uri") or item.row.get("caption", ""))
    return Failure(item.item_id, name, error, " ".join(message.split())[:_MESSAGE_LENGTH], attempt)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
