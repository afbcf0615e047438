"""`rayramid data`: corpora to a versioned latent dataset."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, cast

import typer

from rayramid.models.errors import UserError
from rayramid.platform.cluster import connect
from rayramid.platform.commands.options import Address, AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, progress, result, say
from rayramid.platform.spec import load_spec

if TYPE_CHECKING:
    from rayramid.pipelines.spec import DataSpec

app = typer.Typer(no_args_is_help=True, help="Prepare data: videos to a versioned latent dataset.")
Root = Annotated[str, typer.Argument(metavar="ROOT", help="The dataset's folder or URL.", show_default=False)]


@app.command()
def run(
    spec: SpecFile,
    only: Annotated[str | None, typer.Option(metavar="JOB", help="Run this job alone: shots, score, …")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take the first N sources only; a version with more stays the latest.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; decode nothing.")] = False,
    overrides: Overrides = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Run a data spec; what an earlier run has committed is not done again.

    Example: rayramid data run infra/specs/data-local.yaml
    """
    from rayramid.pipelines import curate

    data_spec = cast("DataSpec", load_spec(spec, overrides or [], kind="data"))
    if dry_run:
        with _checked_sums():
            pending = curate.plan(data_spec, limit=limit)
        if as_json:
            emit_json([dataclasses.asdict(job) for job in pending])
            return
        for job in pending:
            result(f"{job.job:<8} {job.inputs:>8} inputs {job.done:>8} done {job.pending:>8} to do")
        return
    with _checked_sums(), connect(address), progress() as update:
        summary = curate.run(data_spec, only=only, limit=limit, on_progress=update)
    if as_json:
        emit_json(dataclasses.asdict(summary))
        return
    for line in summary.lines():
        result(line)


@app.command()
def plan(
    spec: SpecFile,
    sample: Annotated[int, typer.Option(min=1, help="So many sources, chosen at random, are really done.")] = 16,
    clips_per_step: Annotated[int, typer.Option(min=1, help="What a step of training reads.")] = 32,
    overrides: Overrides = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Predict clips, bytes, buckets, steps per epoch and hours of a spec from a sample, before anything expensive.

    Example: rayramid data plan infra/specs/data-local.yaml --sample 4 --clips-per-step 4
    """
    from rayramid.pipelines.forecast import forecast

    data_spec = cast("DataSpec", load_spec(spec, overrides or [], kind="data"))
    with _checked_sums(), connect(address), progress() as update:
        found = forecast(data_spec, sample, clips_per_step, on_progress=update)
    if as_json:
        emit_json(found.as_dict())
        return
    for line in found.lines():
        result(line)


@app.command()
def status(root: Root, as_json: AsJson = False) -> None:
    """Show each job's ledger: inputs = ok + failed + pending.

    Example: rayramid data status runs/local/data
    """
    from rayramid.pipelines import upkeep

    with _checked_sums():
        ledgers = upkeep.status(root)
    if as_json:
        emit_json([dataclasses.asdict(ledger) for ledger in ledgers])
        return
    for ledger in ledgers:
        result(
            f"{ledger.job:<8} {ledger.inputs:>8} inputs {ledger.ok:>8} ok {ledger.failed:>8} failed"
            f" {ledger.pending:>8} pending {ledger.outputs:>8} outputs"
        )


@app.command()
def explain(
    root: Root,
    clip_id: Annotated[str, typer.Argument(metavar="CLIP_ID", help="Its beginning is enough.", show_default=False)],
    models: Annotated[str | None, typer.Option(metavar="URL", help="Look below here for models trained on it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell where a clip came from, every score, why it is in or out, and which versions and models hold it.

    Example: rayramid data explain runs/local/data 1f3a --models runs/local
    """
    from rayramid.models import storage
    from rayramid.pipelines.explain import explain

    with _checked_sums():
        found = explain(storage.absolute(root), clip_id, models)
    if as_json:
        emit_json(dataclasses.asdict(found))
        return
    for line in found.lines():
        result(line)


@app.command()
def retry(root: Root) -> None:
    """Plan the failed inputs again; the next run takes them.

    Example: rayramid data retry runs/local/data
    """
    from rayramid.pipelines import upkeep

    with _checked_sums():
        count = upkeep.retry(root)
    result(f"{count} failed inputs will be tried again by the next run")


@app.command()
def remove(
    root: Root,
    source: Annotated[
        list[str] | None, typer.Option(metavar="URI", help="A source by URI or source_id; may be given again.")
    ] = None,
    clip: Annotated[list[str] | None, typer.Option(metavar="ID", help="A clip by clip_id; may be given again.")] = None,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
) -> None:
    """Take sources or clips out for good, as a new version; runs to come leave them out, older versions stay.

    Example: rayramid data remove runs/local/data --source /videos/a.mp4 --reason "asked by its author"
    """
    from rayramid.pipelines import revise

    if not (source or clip):
        raise UserError("nothing to remove: name a --source or a --clip")
    with _checked_sums():
        _say_version(*revise.remove(root, source or (), clip or (), reason))


@app.command()
def merge(
    root: Root,
    versions: Annotated[list[int], typer.Argument(metavar="VERSION...", help="Two or more.", show_default=False)],
) -> None:
    """Make a version with the clips of several; they must share VAE, text encoder and frame rate.

    Example: rayramid data merge runs/local/data 1 2
    """
    from rayramid.pipelines import revise

    _say_version(*revise.merge(root, versions))


@app.command()
def export(
    root: Root,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A new folder or URL.", show_default=False)],
    form: Annotated[str, typer.Option("--format", help="pyramid-flow or webdataset.")] = "pyramid-flow",
    version: Annotated[int | None, typer.Option(help="Another version than the latest.")] = None,
) -> None:
    """Write a version as other trainers read it: jsonl with .pt files, or WebDataset tars.

    Example: rayramid data export runs/local/data runs/local/exported --format webdataset
    """
    from rayramid.pipelines.dataset import LatentDataset
    from rayramid.pipelines.export import FORMS, export

    if form not in FORMS:
        raise UserError(f"--format {form}: choose one of {', '.join(FORMS)}")
    with progress() as update:
        clips = export(
            LatentDataset.open(root, version), target, form, lambda done, total: update("export", done, total)
        )
    result(f"{clips} clips in {target}")


@app.command()
def gc(root: Root) -> None:
    """Delete what killed workers left and nothing can use any more.

    Example: rayramid data gc runs/local/data
    """
    from rayramid.pipelines import upkeep

    result(f"{upkeep.gc(root)} orphaned files deleted")


def _say_version(version: int, new: bool) -> None:
    result(f"version  v{version} ({'new' if new else 'unchanged'})")


@contextmanager
def _checked_sums() -> Iterator[None]:
    """Ends with exit code 3 if a sum of the books does not hold."""
    from rayramid.pipelines.ledger import LedgerError

    try:
        yield
    except LedgerError as error:
        say(f"error: {error}")
        raise typer.Exit(3) from None
