"""What each key has asked for today: a file per job in the store, whose name tells the job's cost."""

import asyncio
from pathlib import PurePosixPath

from rayramid.models import storage
from rayramid.serve.job import Job

DAY_S = 86400


class Usage:
    """Adds costs up by UTC days. Jobs that are deleted, cancelled or failed were asked for all the same.

    usage/<owner>/<day>/<id>-<tokens>    created when a job of an owner with a daily limit is admitted
    """

    def __init__(self, url: str) -> None:
        self._url = storage.join(url, "usage")
        self._spent: dict[str, tuple[int, int]] = {}

    async def load(self, owner: str, now: float) -> None:
        """Find out what an owner has spent today, unless it is known; earlier days are forgotten."""
        if self._spent.get(owner, (0, 0))[0] != _day(now):
            found = await asyncio.to_thread(self._read, owner, _day(now))
            if self._spent.get(owner, (0, 0))[0] != _day(now):
                self._spent[owner] = _day(now), found

    def spent(self, owner: str) -> int:
        """Tokens of today's jobs; 0 of an owner who was not loaded."""
        return self._spent.get(owner, (0, 0))[1]

    def charge(self, job: Job) -> None:
        """Count a job from now on, of an owner who was loaded; `record` keeps that."""
        if job.owner in self._spent:
            day, tokens = self._spent[job.owner]
            self._spent[job.owner] = day, tokens + job.work.tokens

    def record(self, job: Job) -> None:
        """Keep what a job costs; blocks."""
        name = f"{job.id}-{job.work.tokens}"
        storage.write_atomic(storage.join(self._url, job.owner, str(self._spent[job.owner][0]), name), b"")

    def _read(self, owner: str, today: int) -> int:
        tokens = 0
        for url in list(storage.list_files(storage.join(self._url, owner))):
            day, name = PurePosixPath(url).parts[-2:]
            if int(day) == today:
                tokens += int(name.rpartition("-")[2])
            else:
                storage.delete(url)
        return tokens


def until_tomorrow_s(now: float) -> int:
    """Whole seconds until the next UTC day."""
    return DAY_S - int(now) % DAY_S


def _day(now: float) -> int:
    return int(now) // DAY_S
