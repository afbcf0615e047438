"""`rayramid jobs`: the jobs that `rayramid submit` started on a cluster."""

import dataclasses
from datetime import UTC, datetime
from typing import Annotated

import typer

from rayramid.platform.commands.options import AsJson, JobServerURL
from rayramid.platform.console import copy, emit_json, result, say
from rayramid.platform.exit_codes import FAILED
from rayramid.platform.job_server import Job, JobServer

app = typer.Typer(no_args_is_help=True, help="See, follow and stop the jobs of a Ray cluster.")
JobId = Annotated[str, typer.Argument(metavar="ID", help="Of the job; its beginning is enough.", show_default=False)]


@app.command("list")
def list_(address: JobServerURL, as_json: AsJson = False) -> None:
    """List the jobs that rayramid started, newest first.

    Example: rayramid jobs list --address http://127.0.0.1:8265
    """
    jobs = JobServer(address).jobs()
    if as_json:
        emit_json([dataclasses.asdict(job) for job in jobs])
        return
    for job in jobs:
        result(f"{job.id:<34} {job.status:<9} {_duration(job):>9}  {job.output}")
    if not jobs:
        say("no jobs yet")


@app.command()
def status(job_id: JobId, address: JobServerURL, as_json: AsJson = False) -> None:
    """Show how a job stands.

    Example: rayramid jobs status rayramid-train-0a1b2c --address http://127.0.0.1:8265
    """
    job = JobServer(address).job(job_id)
    if as_json:
        emit_json(dataclasses.asdict(job))
        return
    for name, value in dataclasses.asdict(job).items():
        if value not in (None, ""):
            result(f"{name:<9} {value}")


@app.command()
def logs(
    job_id: JobId,
    address: JobServerURL,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Show what a job has written; exit code 3 tells that a followed job did not succeed.

    Example: rayramid jobs logs rayramid-train-0a1b2c -f --address http://127.0.0.1:8265
    """
    server = JobServer(address)
    job = server.job(job_id)
    if not follow:
        copy(server.logs(job.id))
        return
    job = server.follow(job.id, copy)
    say(f"{job.id}: {job.status}")
    if job.status != "SUCCEEDED":
        raise typer.Exit(FAILED)


@app.command()
def stop(job_id: JobId, address: JobServerURL, as_json: AsJson = False) -> None:
    """Stop a job and wait for its end; training saves its newest step first, and the same spec goes on from there.

    Example: rayramid jobs stop rayramid-train-0a1b2c --address http://127.0.0.1:8265
    """
    server = JobServer(address)
    job = server.job(job_id)
    if not job.has_ended:
        say(f"{job.id}: asked to stop, which may take two minutes")
    job = server.stop(job.id)
    if as_json:
        emit_json(dataclasses.asdict(job))
    else:
        result(f"{job.id}: {job.status}")


def _duration(job: Job) -> str:
    if job.started is None:
        return "-"
    return str((job.ended or datetime.now(UTC).replace(microsecond=0)) - job.started)
