"""The broker: admits jobs, shares the workers' slots out, and sees every job through to an end.

It keeps nothing of its own: the queue is rebuilt from the store when a broker starts. A worker that dies makes its
job wait again, which then goes on from the units that the store holds.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

from rayramid.serve.admission import Admission, Capacity
from rayramid.serve.desk import Desk
from rayramid.serve.entry import Entry
from rayramid.serve.estimate import Demand, Throughput, demand
from rayramid.serve.expiry import forget_expired
from rayramid.serve.job import Job, Outcome, Progress, Standing, age_s
from rayramid.serve.line import Line
from rayramid.serve.metrics import BrokerMetrics
from rayramid.serve.outlook import Outlook, outlook
from rayramid.serve.refusals import Situation, refusal
from rayramid.serve.retries import may_go_on
from rayramid.serve.slots import Slots
from rayramid.serve.spec import KeyLimits
from rayramid.serve.store import Store
from rayramid.serve.tracing import Traces
from rayramid.serve.webhooks import Webhooks
from rayramid.serve.wire import VideoError

log = logging.getLogger(__name__)

# Runs an attempt at a job on some worker until it is over, saying how far it is, or raises because the worker died.
Dispatch = Callable[[Job, int], AsyncGenerator[Progress, None]]

RETRY_S = 0.5
# Watchers are told no more often.
EVENT_S = 0.2
UNLIMITED = KeyLimits()
CANCELLED = VideoError(code="cancelled", message="The job was cancelled.")
LATE = VideoError(code="deadline_exceeded", message="The video was not completed before its deadline.")


class Broker:
    """Schedules the jobs of one store.

    Args:
        store: where jobs live.
        dispatch: runs an attempt on a worker.
        workers: how many there are, until `staff` says otherwise.
        slots: attempts that each takes at the same time.
        queue_limit: jobs that may wait.
        webhooks: told of jobs that come and end, if users may name URLs.
        traces: of the time that jobs wait.
    """

    def __init__(
        self,
        store: Store,
        dispatch: Dispatch,
        *,
        workers: int,
        slots: int,
        queue_limit: int,
        webhooks: Webhooks | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._store = store
        self._dispatch = dispatch
        self._limit = queue_limit
        self._throughput = Throughput()
        self._line = Line()
        self._entries: dict[str, Entry] = {}
        self._slots = Slots(workers, slots, self._line, self._running)
        self._desk = Desk(store, webhooks, self._refusal, self._admitted)
        self._webhooks = webhooks
        self._metrics = BrokerMetrics()
        self._traces = traces or Traces()
        self._draining = False
        self._seen: Outlook | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def recover(self) -> None:
        """Take up every job of the store that has not ended. To be called once, before anything else."""
        for job in await asyncio.to_thread(lambda: list(self._store.unfinished())):
            self._enter(job, await asyncio.to_thread(self._store.progress, job.id))
        if self._entries:
            log.info("jobs recovered", extra={"jobs": len(self._entries)})
        if self._webhooks:
            await self._webhooks.recover()
        if self._store.keep_s is not None:
            self._start(forget_expired(self._store))
        self._start(self._metrics.tell_jobs(self._line, self._running))
        self._fill()

    def know(self, version: str, capacity: Capacity) -> None:
        """Learn what a worker can do with a version of a model."""
        if self._throughput.guess is None and capacity.tokens_per_second is not None:
            self._throughput.guess = max(1, self._slots.workers) * capacity.tokens_per_second
        if self._slots.know(version, capacity):
            self._fill()

    def staff(self, workers: int) -> None:
        """Learn how many workers there are now."""
        if self._slots.staff(workers):
            self._fill()

    def demand(self) -> Demand:
        """What is left of all jobs, for one worker."""
        speeds = {version: each.tokens_per_second for version, each in self._slots.capacities.items()}
        return demand([(each.job.model_version, each.load().tokens) for each in self._entries.values()], speeds)

    # -- what gateways ask --------------------------------------------------------------------------------------------

    async def submit(self, job: Job, limits: KeyLimits = UNLIMITED) -> Admission:
        """Admit a job; when this returns it is in the store and will be carried out. Asking again changes nothing.

        Args:
            job: to be made.
            limits: of its owner.
        """
        if job.id in self._entries:
            return Admission(True)
        return await self._desk.admit(job, limits)

    async def cancel(self, job_id: str) -> None:
        """End a job that has not ended; a running one leaves its worker before the next step."""
        await self._end(job_id, CANCELLED)

    async def delete(self, job_id: str) -> None:
        """Forget a job; who watches it is told of no end."""
        entry = self._entries.get(job_id)
        if entry is not None:
            await self._stop(entry)
        await asyncio.to_thread(self._store.delete, job_id)
        if entry is not None:
            self._leave(entry, None)
            self._fill()

    async def events(self, job_id: str) -> AsyncGenerator[Standing, None]:
        """Where a job stands, now and whenever that changes, until it has ended."""
        loop = asyncio.get_running_loop()
        while entry := self._entries.get(job_id):
            changed, earliest = entry.changed, loop.time() + EVENT_S
            units = entry.units
            yield self._look().standing(entry)
            await changed.wait()
            # That there is more to see, or no more to come, is told at once, everything else after a while.
            while job_id in self._entries and entry.units == units and loop.time() < earliest:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(earliest):
                        await entry.changed.wait()

    async def drain(self) -> None:
        """Begin nothing more, and return when every running job has left off at a unit's edge or ended."""
        self._draining = True
        running = self._running()
        for entry in running:
            entry.leaving = True
        await asyncio.gather(*(entry.attempt for entry in running if entry.attempt), return_exceptions=True)

    def _refusal(self, job: Job, limits: KeyLimits) -> Admission | None:
        met = Situation(
            capacity=self._slots.capacities.get(job.model_version),
            own=[entry for entry in self._entries.values() if entry.job.owner == job.owner],
            arriving=self._desk.arriving(job.owner),
            spent=self._desk.usage.spent(job.owner),
            # Those that are being admitted will wait, this one among them.
            waiting=len(self._line) + len(self._desk),
            queue_limit=self._limit,
        )
        refused = refusal(job, limits, met, self._look, time.time())
        if refused:
            self._metrics.refused(refused.reason)
        return refused

    def _admitted(self, job: Job) -> None:
        self._enter(job, None)
        self._fill()

    # -- jobs and slots ------------------------------------------------------------------------------------------------

    def _enter(self, job: Job, progress: Progress | None) -> None:
        entry = self._entries[job.id] = Entry(job, progress)
        if job.deadline is not None:
            wait_s = max(0.0, job.deadline - time.time())
            entry.deadline = asyncio.get_running_loop().call_later(wait_s, self._too_late, job.id)
        self._line.push(job)

    def _too_late(self, job_id: str) -> None:
        self._start(self._end(job_id, LATE))

    def _leave(self, entry: Entry, outcome: Outcome | None) -> None:
        """The job has ended, or was deleted."""
        if self._entries.pop(entry.job.id, None) is None:
            return
        if entry.deadline is not None:
            entry.deadline.cancel()
        entry.wake()
        if outcome is not None:
            self._metrics.ended(outcome.error.code if outcome.error else None)
        if self._webhooks:
            self._webhooks.ended(entry.job)

    def _running(self) -> list[Entry]:
        return [entry for entry in self._entries.values() if entry.attempt is not None]

    def _fill(self) -> None:
        """Give free slots out; when there are none, ask those back that others deserve more."""
        while not self._draining and (job := self._slots.next()):
            self._line.remove(job)
            entry = self._entries[job.id]
            entry.attempt = asyncio.create_task(self._attempt(entry))
        if not self._draining:
            for job in self._slots.to_leave():
                self._entries[job.id].leaving = True
        self._seen = None
        for job in self._line:
            self._entries[job.id].wake()

    # -- attempts -----------------------------------------------------------------------------------------------------

    async def _attempt(self, entry: Entry) -> None:
        job_id = entry.job.id
        try:
            control = await asyncio.to_thread(self._store.control, job_id)
            self._throughput.begin(time.monotonic())
            self._traces.queued(entry.job, entry.waits_since)
            if control.attempts == 0:
                self._metrics.wait.observe(age_s(job_id))
            try:
                async with aclosing(self._dispatch(entry.job, control.attempts + 1)) as told:
                    async for progress in told:
                        self._hear(entry, progress)
            # The boundary to another process: whatever killed the attempt, the job must not be lost.
            except Exception as error:
                log.warning("attempt died", extra={"job": job_id, "error": str(error)[:300]})
                self._metrics.died()
                await asyncio.sleep(RETRY_S)
            wanted = await asyncio.to_thread(may_go_on, self._store, job_id)
            outcome = None if wanted else await asyncio.to_thread(self._store.outcome, job_id)
        finally:
            entry.attempt, entry.leaving, entry.told = None, False, False
            if not self._running():
                self._throughput.rest()
        if wanted:
            entry.waits_since = time.time_ns()
            self._line.push(entry.job)
            entry.wake()
        else:
            self._leave(entry, outcome)
        self._fill()

    def _hear(self, entry: Entry, progress: Progress) -> None:
        before, units = entry.load().tokens, entry.units
        entry.progress = progress
        if progress.units_done and not units and not entry.job.extended_from:
            self._metrics.first_frame.observe(age_s(entry.job.id))
        # What a new attempt makes again was not undone.
        self._throughput.done(max(0.0, before - entry.load().tokens), time.monotonic())
        entry.wake()
        # Only now is it certain that the attempt has begun.
        if entry.leaving and not entry.told:
            entry.told = True
            self._start(asyncio.to_thread(self._store.pause, entry.job.id))

    async def _end(self, job_id: str, error: VideoError) -> None:
        outcome = await asyncio.to_thread(self._store.end, job_id, error)
        entry = self._entries.get(job_id)
        if entry is None:
            return
        await self._stop(entry)
        self._leave(entry, outcome)
        self._fill()

    async def _stop(self, entry: Entry) -> None:
        """Let a job neither run nor wait."""
        while entry.attempt is not None and not entry.attempt.done():
            entry.attempt.cancel()
            await asyncio.wait([entry.attempt])
        self._line.remove(entry.job)
        if entry.deadline is not None:
            entry.deadline.cancel()

    def _look(self) -> Outlook:
        """Everybody's place and times, looked up at most once in a while however many watch."""
        now = time.monotonic()
        if self._seen is None or now - self._seen.at >= EVENT_S:
            waiting = [self._entries[job.id] for job in self._slots.turns()]
            self._seen = outlook(now, self._running(), waiting, len(self._slots), self._throughput.per_second)
        return self._seen

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
