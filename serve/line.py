"""Who is next: owners share the slots equally; of one owner's jobs priorities, deadlines and age decide."""

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rayramid.serve.job import Job


def rank(job: Job) -> tuple[float, float, str]:
    """Of one owner's jobs the one with the smallest rank goes first."""
    return -job.priority, job.deadline or math.inf, job.id


class Line:
    """Jobs that wait. Who has the fewest slots is next; owners with equally many take turns."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, list[Job]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._jobs.values())

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._jobs.values() for job in jobs)

    def push(self, job: Job) -> None:
        """Add a job; an owner without waiting jobs comes behind the others."""
        jobs = self._jobs.setdefault(job.owner, [])
        jobs.append(job)
        jobs.sort(key=rank)

    def remove(self, job: Job) -> None:
        """Take a job out, which has its turn or has ended; one that does not wait is fine."""
        jobs = self._jobs.get(job.owner, [])
        if job in jobs:
            jobs.remove(job)
            self._jobs.move_to_end(job.owner)
        if not jobs:
            self._jobs.pop(job.owner, None)

    def order(self, slots: Mapping[str, int]) -> Iterator[Job]:
        """All jobs as their turns would come if each got a slot and none became free.

        Args:
            slots: how many slots each owner has now.
        """
        taken = Counter(slots)
        waiting = OrderedDict((owner, list(jobs)) for owner, jobs in self._jobs.items())
        while waiting:
            owner = min(waiting, key=lambda each: taken[each])
            yield waiting[owner].pop(0)
            taken[owner] += 1
            waiting.move_to_end(owner)
            if not waiting[owner]:
                del waiting[owner]


def to_leave(running: Sequence[Job], waiting: Iterable[Job]) -> list[Job]:
    """Running jobs whose slots waiting ones deserve more, once all slots are taken.

    A waiting job deserves that of a less urgent one of its owner; else one of the owner with the most slots, if the two
    owners then have more equal shares.

    Args:
        running: those that hold a slot and were not asked to leave.
        waiting: those that will not get a slot without this, in the order of their turns.
    """
    staying = sorted(running, key=rank)
    slots = Counter(job.owner for job in staying)
    leaving = []
    for job in waiting:
        own = [each for each in staying if each.owner == job.owner and each.priority < job.priority]
        richest = max(staying, key=lambda each: (slots[each.owner], rank(each)), default=None)
        if own:
            victim = own[-1]
        elif richest is not None and slots[job.owner] + 1 < slots[richest.owner]:
            victim = richest
        else:
            continue
        staying.remove(victim)
        leaving.append(victim)
        slots[victim.owner] -= 1
        slots[job.owner] += 1
    return leaving
