"""What is to be expected: everybody's place in the line, and when each job will be begun and done."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rayramid.serve.entry import Entry
from rayramid.serve.estimate import Times, forecast
from rayramid.serve.job import Standing

# Until anything was measured.
FIRST_GUESS_S = 10


@dataclass(frozen=True)
class Outlook:
    """Places in the line, from 1, and times of everybody, as of the moment `at`."""

    at: float
    places: dict[str, int]
    times: dict[str, Times]

    def standing(self, entry: Entry) -> Standing:
        """Where a job stands."""
        times = self.times.get(entry.job.id)
        return Standing(
            progress=entry.progress,
            queue_position=self.places.get(entry.job.id, 0),
            estimated_seconds=None if times is None else round(times.end, 1),
        )

    def room_after_s(self) -> int:
        """When the first one in the line will be begun."""
        return _soonest([times.begin for job_id, times in self.times.items() if job_id in self.places])

    def one_ends_after_s(self, entries: Sequence[Entry]) -> int:
        """When the first of some jobs will be done."""
        return _soonest([self.times[entry.job.id].end for entry in entries if entry.job.id in self.times])


def _soonest(seconds: Sequence[float]) -> int:
    return max(1, math.ceil(min(seconds))) if seconds else FIRST_GUESS_S


def outlook(
    at: float, running: Sequence[Entry], waiting: Sequence[Entry], slots: int, per_second: float | None
) -> Outlook:
    """What follows from how things stand.

    Args:
        at: the time now.
        running: jobs that hold a slot.
        waiting: those behind, in the order of their turns.
        slots: how many run at the same time.
        per_second: tokens that all of them together work off, as far as that is known.
    """
    loads = [each.load() for each in running], [each.load() for each in waiting]
    # While there is no worker, one is on its way.
    times = forecast(*loads, max(1, slots), per_second) if per_second else []
    ids = [entry.job.id for entry in (*running, *waiting)]
    places = {entry.job.id: place for place, entry in enumerate(waiting, start=1)}
    return Outlook(at, places, dict(zip(ids, times, strict=False)))
