"""`rayramid submit`: a spec as a job on a Ray cluster."""

import dataclasses
from typing import Annotated

import typer

from rayramid.platform.commands.options import AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, out, result
from rayramid.platform.jobs import submit as submit_job
from rayramid.platform.spec import load_spec


def submit(
    spec: SpecFile,
    address: Annotated[str, typer.Option(metavar="URL", help="The job server: http://HOST:8265.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", help="Show the log until the job ends.")] = False,
    environment: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="A variable for the job; no secrets.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run a spec of kind data, train or eval as a Ray job; a data or training job submitted again continues.

    Example: rayramid submit infra/specs/data-local.yaml --address http://127.0.0.1:8265 --follow
    """
    job = submit_job(
        load_spec(spec, overrides or []),
        address,
        environment=dict(_pair(item) for item in environment or []),
        on_log=(lambda text: out.print(text, end="", markup=False)) if follow and not as_json else None,
    )
    if as_json:
        emit_json(dataclasses.asdict(job))
    else:
        result(f"{job.id}: {job.status}")
        if not follow:
            result(f"next: ray job logs --address {address} --follow {job.id}")
    if job.status in {"FAILED", "STOPPED"}:
        raise typer.Exit(3)


def _pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{item!r} is not NAME=VALUE", param_hint="--env")
    return name, value
