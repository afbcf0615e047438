"""`rayramid data`: corpora to a versioned latent dataset."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, cast

import typer

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
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N sources only.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; decode nothing.")] = False,
    overrides: Overrides = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Run a data spec; what an earlier run has committed is not done again.

    Example: rayramid data run infra/specs/data-local.yaml
    """
    from rayramid.pipelines import curate
    from rayramid.pipelines.ledger import LedgerError

    data_spec = cast("DataSpec", load_spec(spec, overrides or [], kind="data"))
    if dry_run:
        pending = curate.plan(data_spec, limit=limit)
        if as_json:
            emit_json([dataclasses.asdict(job) for job in pending])
            return
        for job in pending:
            result(f"{job.job:<8} {job.inputs:>8} inputs {job.done:>8} done {job.pending:>8} to do")
        return
    with connect(address), progress() as update:
        try:
            summary = curate.run(data_spec, only=only, limit=limit, on_progress=update)
        except LedgerError as error:
            say(f"error: {error}")
            raise typer.Exit(3) from None
    if as_json:
        emit_json(dataclasses.asdict(summary))
        return
    for line in summary.lines():
        result(line)


@app.command()
def status(root: Root, as_json: AsJson = False) -> None:
    """Show each job's ledger: inputs = ok + failed + pending."""
    from rayramid.pipelines import curate

    ledgers = curate.status(root)
    if as_json:
        emit_json([dataclasses.asdict(ledger) for ledger in ledgers])
        return
    for ledger in ledgers:
        result(
            f"{ledger.job:<8} {ledger.inputs:>8} inputs {ledger.ok:>8} ok {ledger.failed:>8} failed"
            f" {ledger.pending:>8} pending {ledger.outputs:>8} outputs"
        )


@app.command()
def retry(root: Root) -> None:
    """Plan the failed inputs again; the next run takes them."""
    from rayramid.pipelines import curate

    result(f"{curate.retry(root)} failed inputs will be tried again by the next run")


@app.command()
def gc(root: Root) -> None:
    """Delete files that no receipt names, left by killed workers."""
    from rayramid.pipelines import curate

    result(f"{curate.gc(root)} orphaned files deleted")
