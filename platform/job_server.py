"""The job server of a Ray cluster: the jobs of rayramid that it knows, their logs and their ends."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rayramid.models.errors import UserError

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

log = logging.getLogger(__name__)

# What the ids of rayramid's jobs begin with.
PREFIX = "rayramid-"
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
POLL_S = 1.0
# How long a server that fails to answer is asked again: heads are restarted, and connections break.
PATIENCE_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A job as its server last told of it.

    Attributes:
        id: the submission id.
        kind: of its spec.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        output: the folder or URL that its results are in.
        started: when it was submitted.
        ended: when it ended; None while it has not.
        exit_code: of the command that it ran, as `rayramid` documents them; None while it runs.
        message: what the server says about the status, in one line.
    """

    id: str
    kind: str
    status: str
    output: str
    started: datetime | None
    ended: datetime | None
    exit_code: int | None
    message: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ENDED


class JobServer:
    """A connection to a job server.

    Args:
        address: `http://HOST:8265`.

    Raises:
        UserError: nothing answers there, or it wants another token.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = _connect(address)

    def start(self, job_id: str, entrypoint: str, **options: Any) -> None:
        """Starts a job, unless there is one of that id; `options` are those of Ray's `submit_job`."""

        def start() -> None:
            # A question that was not answered may have been heard.
            if all(job.submission_id != job_id for job in self._client.list_jobs()):
                self._client.submit_job(entrypoint=entrypoint, submission_id=job_id, **options)

        self._ask(start)

    def jobs(self) -> list[Job]:
        """The jobs that rayramid started, newest first."""
        found = [_job(details) for details in self._details()]
        return sorted(found, key=lambda job: job.started or datetime.now(UTC), reverse=True)

    def job(self, job_id: str) -> Job:
        """The job of that id, of which its beginning is enough; a UserError if there is none or more than one."""
        found = self.jobs()
        matching = [job for job in found if job.id == job_id] or [job for job in found if job.id.startswith(job_id)]
        if len(matching) != 1:
            many = ", ".join(job.id for job in matching[:5])
            what = f"more than one job's id begins with '{job_id}': {many}" if matching else f"no job '{job_id}'"
            raise UserError(f"{self.address}: {what}; 'rayramid jobs list' shows all")
        return matching[0]

    def logs(self, job_id: str) -> str:
        """What the job has written so far."""
        return str(self._ask(lambda: self._client.get_job_logs(job_id)))

    def follow(self, job_id: str, on_log: Callable[[str], None]) -> Job:
        """Passes the job's log on from its start and as it grows, until the job has ended.

        A connection that breaks is made again, and nothing is passed on twice.
        """
        asyncio.run(self._tail(job_id, on_log))
        return self.job(job_id)

    def stop(self, job_id: str) -> Job:
        """Asks a job to end and waits until it has; one that has ended stays as it is."""
        if not self.job(job_id).has_ended:
            self._ask(lambda: self._client.stop_job(job_id))
        while not (job := self.job(job_id)).has_ended:
            time.sleep(POLL_S)
        return job

    def _details(self) -> "list[JobDetails]":
        return [job for job in self._ask(self._client.list_jobs) if (job.submission_id or "").startswith(PREFIX)]

    def _ask(self, question: Callable[[], T]) -> T:
        """The answer to `question`, which is put again for a while if it fails; a UserError if there is none."""
        last = time.monotonic() + PATIENCE_S
        while True:
            try:
                return question()
            except (OSError, RuntimeError) as error:
                if time.monotonic() > last:
                    # A server's own traceback ends with what went wrong.
                    reason = [line for line in str(error).splitlines() if line.strip(" .")][-1]
                    raise UserError(f"the Ray job server at {self.address} fails to answer: {reason}") from None
                log.debug("a job server is asked again", extra={"address": self.address, "error": str(error)})
            time.sleep(POLL_S)

    async def _tail(self, job_id: str, on_log: Callable[[str], None]) -> None:
        import aiohttp

        seen = 0
        while True:
            read = 0
            try:
                async for piece in self._client.tail_job_logs(job_id):
                    # Each connection tells the log from its start.
                    news = piece[max(0, seen - read) :]
                    read += len(piece)
                    seen = max(seen, read)
                    if news:
                        on_log(news)
            except (aiohttp.ClientError, RuntimeError) as error:
                log.debug("a job's log broke off", extra={"job": job_id, "error": str(error)})
            if self.job(job_id).has_ended:
                return
            await asyncio.sleep(POLL_S)


def _job(details: "JobDetails") -> Job:
    metadata = details.metadata or {}
    lines = (details.message or "").strip().splitlines()
    return Job(
        id=str(details.submission_id),
        kind=metadata.get("kind", ""),
        status=str(details.status.value),
        output=metadata.get("output", ""),
        started=_time(details.start_time),
        ended=_time(details.end_time),
        exit_code=details.driver_exit_code,
        message=lines[0] if lines else "",
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds // 1000, UTC) if milliseconds else None


def _connect(address: str) -> "JobSubmissionClient":
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # They tell of every upload and connection; the import has set their levels.
    for talkative in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{talkative}").setLevel(logging.WARNING)
    token = _token()
    try:
        client = JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else None)
        client.list_jobs()
    except AuthenticationError:
        raise UserError(
            f"the Ray job server at {address} wants another token; put the cluster's into RAY_AUTH_TOKEN, or its file's"
            " path into RAY_AUTH_TOKEN_PATH"
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
