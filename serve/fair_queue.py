"""The waiting line: owners take turns, and each owner's jobs keep their order."""

from collections import OrderedDict, deque

from rayramid.serve.job import Job


class FairQueue:
    """Round robin over owners, so that nobody's hundred jobs keep another's one waiting."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Job]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def push(self, job: Job) -> None:
        """Add a job at the end of its owner's line."""
        self._lines.setdefault(job.owner, deque()).append(job)

    def push_front(self, job: Job) -> None:
        """Put a job back that had its turn already: it is the very next one."""
        self._lines.setdefault(job.owner, deque()).appendleft(job)
        self._lines.move_to_end(job.owner, last=False)

    def pop(self) -> Job:
        """Take the next owner's oldest job; the owner then waits until all others had their turn."""
        owner, line = next(iter(self._lines.items()))
        job = line.popleft()
        self._lines.move_to_end(owner)
        if not line:
            del self._lines[owner]
        return job

    def remove(self, job_id: str) -> bool:
        """Take a job out; False if it does not wait."""
        for owner, line in self._lines.items():
            for job in line:
                if job.id == job_id:
                    line.remove(job)
                    if not line:
                        del self._lines[owner]
                    return True
        return False
