"""Specs as Ray jobs: the installed package and the spec travel, the repository does not."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from rayramid.models.errors import UserError
from rayramid.platform.wheel import build_wheel

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# What a job's driver runs for each kind of spec.
COMMANDS: Mapping[str, str] = {"data": "data run", "train": "train", "eval": "eval"}
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


@dataclass(frozen=True)
class Submitted:
    """A job on a cluster: its id, the address of the cluster's job server, and its last known status."""

    id: str
    address: str
    status: str


def submit(
    spec: BaseModel,
    address: str,
    *,
    environment: Mapping[str, str] | None = None,
    on_log: Callable[[str], None] | None = None,
) -> Submitted:
    """Runs `spec` as a Ray job; follows it to its end when `on_log` is given.

    The submission id follows from the spec and the code, so submitting the same again while it runs finds the running
    job; once it has ended, a further attempt is started, which resumes from what was committed.

    Args:
        spec: a validated spec; its paths are absolute or URLs, and must be reachable from the cluster.
        address: the job server, `http://host:8265`.
        environment: variables for the job's processes; not for secrets, since the job server shows them.
        on_log: gets each piece of the job's log.

    Raises:
        UserError: the kind can't be submitted, or no job server answers.
    """
    fields = spec.model_dump(mode="json")
    kind = str(fields["kind"])
    if kind not in COMMANDS:
        raise UserError(f"a spec of kind '{kind}' can't be submitted; kinds that can: {', '.join(COMMANDS)}")
    client = _client(address)
    with tempfile.TemporaryDirectory(prefix="rayramid-submit-") as folder:
        wheel = build_wheel(Path(folder))
        work = Path(folder) / "work"
        work.mkdir()
        # JSON is YAML, and leaves no doubt about types.
        (work / "spec.yaml").write_text(json.dumps(fields, indent=2), encoding="utf-8")
        digest = hashlib.sha256(wheel.read_bytes() + (work / "spec.yaml").read_bytes()).hexdigest()[:12]
        job_id = _free_id(client, f"rayramid-{kind}-{digest}")
        if job_id not in {job.submission_id for job in client.list_jobs()}:
            client.submit_job(
                entrypoint=f"python -m rayramid.platform.cli {COMMANDS[kind]} spec.yaml",
                submission_id=job_id,
                runtime_env={
                    "py_modules": [str(wheel)],
                    "working_dir": str(work),
                    "env_vars": dict(environment or {}),
                },
                metadata={"kind": kind},
            )
    if on_log is not None:
        _follow(client, job_id, on_log)
    return Submitted(job_id, address, str(client.get_job_status(job_id).value))


def _client(address: str) -> "JobSubmissionClient":
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    token = _token()
    try:
        client = JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else None)
        client.list_jobs()
    except AuthenticationError:
        raise UserError(
            f"the Ray job server at {address} wants a token; put the cluster's into RAY_AUTH_TOKEN"
        ) from None
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"no Ray job server answers at {address}: {str(error).splitlines()[0]}") from None
    return client


def _token() -> str:
    """The cluster's token, from where Ray itself looks for it; empty if there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _free_id(client: "JobSubmissionClient", stem: str) -> str:
    """`stem` or its first attempt `stem-N` that has not ended yet."""
    ended = {job.submission_id for job in client.list_jobs() if job.status.value in ENDED}
    attempt = 1
    job_id = stem
    while job_id in ended:
        attempt += 1
        job_id = f"{stem}-{attempt}"
    return job_id


def _follow(client: "JobSubmissionClient", job_id: str, on_log: Callable[[str], None]) -> None:
    """Passes the job's log on as it grows, until the job has ended."""
    seen = 0
    ended = False
    while not ended:
        ended = client.get_job_status(job_id).value in ENDED
        logs = client.get_job_logs(job_id)
        if len(logs) > seen:
            on_log(logs[seen:])
            seen = len(logs)
        if not ended:
            time.sleep(1)
