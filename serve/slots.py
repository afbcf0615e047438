"""The workers' slots: how many there are, which job gets the next one, and which ones are asked for back."""

from collections import Counter
from collections.abc import Callable, Iterator

from rayramid.serve.admission import Capacity
from rayramid.serve.entry import Entry
from rayramid.serve.job import Job
from rayramid.serve.line import Line, to_leave


class Slots:
    """Equal workers with equally many slots.

    Args:
        workers: how many there are.
        each: attempts that each takes at the same time.
        line: jobs that wait.
        running: those that hold a slot.
    """

    def __init__(self, workers: int, each: int, line: Line, running: Callable[[], list[Entry]]) -> None:
        self.workers = workers
        self._each = each
        self._line = line
        self._running = running
        # Of one worker, by the version of the model.
        self.capacities: dict[str, Capacity] = {}

    def __len__(self) -> int:
        return self.workers * self._each

    def know(self, version: str, capacity: Capacity) -> bool:
        """Learn what a worker can do with a version of a model; whether that is new."""
        new = self.capacities.get(version) != capacity
        self.capacities[version] = capacity
        return new

    def staff(self, workers: int) -> bool:
        """Learn how many workers there are now; whether that is new."""
        new = self.workers != workers
        self.workers = workers
        return new

    def next(self) -> Job | None:
        """The job that gets a free slot now, if there is one."""
        if not self._line or len(self._running()) >= len(self):
            return None
        job = next(self.turns())
        return job if self._fits(job) else None

    def to_leave(self) -> list[Job]:
        """Those whose slots waiting jobs deserve more, when none is free or will be."""
        staying = [entry.job for entry in self._running() if not entry.leaving]
        free = max(0, len(self) - len(staying))
        return to_leave(staying, list(self.turns())[free:])

    def turns(self) -> Iterator[Job]:
        """All that wait, in the order of their turns; slots that will be free at a unit's edge count as free."""
        return self._line.order(Counter(entry.job.owner for entry in self._running() if not entry.leaving))

    def _fits(self, job: Job) -> bool:
        """Whether the workers have memory for one more; a worker that happens to be full lets it wait there."""
        capacity = self.capacities.get(job.model_version)
        if capacity is None:
            return True
        alike = (entry.job for entry in self._running() if entry.job.model_version == job.model_version)
        held = sum(each.work.cached_tokens for each in alike)
        return held + job.work.cached_tokens <= self.workers * capacity.cache_tokens
