"""`rayramid submit`: a spec as a job on a Ray cluster."""

import dataclasses
import os
from typing import Annotated

import typer

from rayramid.platform.commands.options import AsJson, JobServerURL, Overrides, SpecFile
from rayramid.platform.console import copy, emit_json, err, out, result
from rayramid.platform.exit_codes import FAILED
from rayramid.platform.jobs import Driver
from rayramid.platform.jobs import submit as submit_job
from rayramid.platform.spec import load_spec


def submit(
    spec: SpecFile,
    address: JobServerURL,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show the log until the job ends.")] = False,
    retries: Annotated[
        int, typer.Option(min=0, help="Follow, and start a job that failed again so many times; it goes on.")
    ] = 0,
    environment: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME[=VALUE]", help="A variable for the job, yours without VALUE; no secrets."),
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="CPUs for the job's driver; without any it is on the head.")] = 0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs for the driver.")] = 0,
    memory: Annotated[float, typer.Option(min=0, metavar="GIB", help="Memory for the driver.")] = 0,
    resource: Annotated[
        list[str] | None, typer.Option(metavar="NAME=AMOUNT", help="A resource of the cluster's own for the driver.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run a spec of kind data, train, vae, eval, suite or distances as a Ray job; submitted again, it goes on.

    Example: rayramid submit infra/specs/data-local.yaml --address http://127.0.0.1:8265 --follow
    """
    console = err if as_json else out
    job = submit_job(
        load_spec(spec, overrides or []),
        address,
        environment=dict(_variable(item) for item in environment or []),
        driver=Driver(cpus, gpus, memory, dict(_amount(item) for item in resource or [])),
        retries=retries,
        on_log=(lambda text: copy(text, console)) if follow or retries else None,
    )
    if as_json:
        emit_json(dataclasses.asdict(job))
    else:
        result(f"{job.id}: {job.status}")
        if not job.has_ended:
            result(f"next: rayramid jobs logs {job.id} --follow --address {address}")
    if job.status in {"FAILED", "STOPPED"}:
        raise typer.Exit(FAILED)


def _variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not name or (not equals and name not in os.environ):
        raise typer.BadParameter(f"{name!r} is neither NAME=VALUE nor set here", param_hint="--env")
    return name, value if equals else os.environ[name]


def _amount(item: str) -> tuple[str, float]:
    name, _, amount = item.partition("=")
    try:
        return name, float(amount)
    except ValueError:
        raise typer.BadParameter(f"{item!r} is not NAME=AMOUNT", param_hint="--resource") from None
