"""The broker: admits jobs, lets owners take turns, and sees every job through to an end.

It keeps nothing of its own: the queue is rebuilt from the store when a broker starts. A worker that dies makes its
job the next one, which then goes on from the state that the store holds.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rayramid.serve.fair_queue import FairQueue
from rayramid.serve.job import Job
from rayramid.serve.store import Store
from rayramid.serve.wire import VideoError

log = logging.getLogger(__name__)

# Runs an attempt at a job on some worker until the job has ended, or raises because the worker died.
Dispatch = Callable[[str, int], Awaitable[None]]

ATTEMPTS = 4
RETRY_S = 0.5
CANCEL_S = 10.0
CANCELLED = VideoError(code="cancelled", message="The job was cancelled.")
# Until a job has ended, nothing is known about how long one takes.
FIRST_GUESS_S = 10.0


@dataclass(frozen=True)
class Admission:
    """Whether a job may wait; if not, in how many seconds there will likely be room."""

    accepted: bool
    retry_after_s: int = 0


class Broker:
    """Schedules the jobs of one store.

    Args:
        store: where jobs live.
        dispatch: runs an attempt on a worker.
        slots: attempts that the workers take at the same time.
        queue_limit: jobs that may wait.
    """

    def __init__(self, store: Store, dispatch: Dispatch, *, slots: int, queue_limit: int) -> None:
        self._store = store
        self._dispatch = dispatch
        self._slots = slots
        self._limit = queue_limit
        self._queue = FairQueue()
        self._admitting = 0
        self._running: dict[str, asyncio.Task[None]] = {}
        self._seconds_per_job = FIRST_GUESS_S

    async def recover(self) -> None:
        """Take up every job of the store that has not ended. To be called once, before anything else."""
        for job in await asyncio.to_thread(lambda: list(self._store.unfinished())):
            self._queue.push(job)
        if self._queue:
            log.info("jobs recovered", extra={"jobs": len(self._queue)})
        self._fill()

    async def submit(self, job: Job) -> Admission:
        """Admit a job; when this returns it is in the store and will be carried out."""
        if len(self._queue) + self._admitting >= self._limit:
            turns = math.ceil((len(self._queue) + 1) / self._slots)
            return Admission(False, max(1, round(turns * self._seconds_per_job)))
        self._admitting += 1
        try:
            await asyncio.to_thread(self._store.add, job)
        finally:
            self._admitting -= 1
        self._queue.push(job)
        self._fill()
        return Admission(True)

    async def cancel(self, job_id: str) -> None:
        """End a job that has not ended; a running one leaves its worker before the next step."""
        self._queue.remove(job_id)
        await asyncio.to_thread(self._store.end, job_id, CANCELLED)
        task = self._running.get(job_id)
        if task:
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_S)
        self._fill()

    def _fill(self) -> None:
        while self._queue and len(self._running) < self._slots:
            job = self._queue.pop()
            self._running[job.id] = asyncio.create_task(self._attempt(job))

    async def _attempt(self, job: Job) -> None:
        try:
            again = await self._ended_early(job)
        finally:
            del self._running[job.id]
        if again:
            self._queue.push_front(job)
        self._fill()

    async def _ended_early(self, job: Job) -> bool:
        """Make one attempt; whether it left the job unfinished."""
        attempt = 1 + await asyncio.to_thread(self._store.attempts, job.id)
        started = time.monotonic()
        try:
            await self._dispatch(job.id, attempt)
            self._seconds_per_job += 0.2 * (time.monotonic() - started - self._seconds_per_job)
        # The boundary to another process: whatever killed the attempt, the job must not be lost.
        except Exception as error:
            log.warning("attempt died", extra={"job": job.id, "attempt": attempt, "error": str(error)[:300]})
            await asyncio.sleep(RETRY_S)
        return await asyncio.to_thread(self._may_try_again, job.id, attempt)

    def _may_try_again(self, job_id: str, attempt: int) -> bool:
        if self._store.outcome(job_id) is not None:
            return False
        if attempt < ATTEMPTS:
            return True
        message = f"The server failed {attempt} times at this video."
        self._store.end(job_id, VideoError(code="server_error", message=message))
        return False
