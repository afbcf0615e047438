"""A job in the broker's books."""

import asyncio
import time

from rayramid.serve.estimate import Load
from rayramid.serve.job import Job, Progress


class Entry:
    """A job that has not ended; `attempt` runs while it holds a slot."""

    def __init__(self, job: Job, progress: Progress | None) -> None:
        self.job = job
        self.progress = progress
        self.attempt: asyncio.Task[None] | None = None
        # It is to leave its slot at a unit's edge, and the worker has been told.
        self.leaving = self.told = False
        self.deadline: asyncio.TimerHandle | None = None
        self.changed = asyncio.Event()
        # Since when it waits for a slot: Unix time in nanoseconds.
        self.waits_since = time.time_ns()

    @property
    def units(self) -> int:
        """Units that can be played."""
        return self.progress.units_done if self.progress else 0

    def load(self) -> Load:
        """What is left of it."""
        done = self.progress.steps_done / max(1, self.progress.steps_total) if self.progress else 0.0
        return Load((1 - done) * self.job.work.steps, (1 - done) * self.job.work.tokens)

    def wake(self) -> None:
        """Let those know who watch it."""
        self.changed.set()
        self.changed = asyncio.Event()
