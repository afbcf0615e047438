"""One replica's workers: one for every model that it has loaded, in the version that a job was accepted with."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from rayramid.serve.admission import Capacity
from rayramid.serve.job import Job, Progress
from rayramid.serve.loaded import Loaded
from rayramid.serve.releases import Releases, Version
from rayramid.serve.store import Store
from rayramid.serve.wire import VideoError
from rayramid.serve.worker import Worker


class GoneError(Exception):
    """Where a version was, there is another one now, or none."""


@dataclass(frozen=True)
class Opened:
    """A worker with its model loaded, what it can do, and the loop of its engine."""

    worker: Worker
    capacity: Capacity
    loop: asyncio.Task[None]


class Workers:
    """Carries out attempts at jobs of any model that was ever released.

    Args:
        store: where jobs live.
        releases: where versions of models are.
        most: models that are loaded at a time.
        open_worker: loads one; blocks, called in a thread; may raise GoneError.
    """

    def __init__(
        self,
        store: Store,
        releases: Releases,
        most: int,
        open_worker: Callable[[Version], tuple[Worker, Capacity]],
    ) -> None:
        self._store = store
        self._releases = releases
        self._open_worker = open_worker
        self._loaded = Loaded[Version, Opened](most, self._open, _close)

    def open(self, version: Version) -> Capacity:
        """Load a version before any job asks for it; blocks. What this replica can do with it."""
        worker, capacity = self._open_worker(version)
        self._loaded.put(version, _opened(worker, capacity))
        return capacity

    async def run(self, job: Job, attempt: int) -> AsyncGenerator[Capacity | Progress, None]:
        """Carry out an attempt: says what this replica can do with the job's model, and then how far it is."""
        try:
            async with self._loaded.hold(await asyncio.to_thread(self._find, job)) as opened:
                yield opened.capacity
                async with aclosing(opened.worker.run(job.id, attempt)) as told:
                    async for progress in told:
                        yield progress
        except GoneError:
            message = f"Version {job.model_version} of the model {job.model} is not there any more."
            await asyncio.to_thread(self._store.end, job.id, VideoError(code="model_changed", message=message))

    def check(self) -> None:
        """Raise what ended an engine's loop, if any has ended."""
        for opened in self._loaded.things():
            if opened.loop.done():
                opened.loop.result()

    def _find(self, job: Job) -> Version:
        self._releases.refresh()
        version = self._releases.find(job.model, job.model_version)
        if version is None:
            raise GoneError
        return version

    async def _open(self, version: Version) -> Opened:
        return _opened(*await asyncio.to_thread(self._open_worker, version))


def _opened(worker: Worker, capacity: Capacity) -> Opened:
    return Opened(worker, capacity, asyncio.create_task(worker.engine.run()))


async def _close(opened: Opened) -> None:
    opened.loop.cancel()
    await asyncio.wait((opened.loop,))
    opened.worker.close()
