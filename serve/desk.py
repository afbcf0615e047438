"""Where jobs are admitted: each once, however often it is asked for, and kept before anybody hears that it is."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from rayramid.serve.admission import Admission
from rayramid.serve.job import Job
from rayramid.serve.spec import KeyLimits
from rayramid.serve.store import Store
from rayramid.serve.usage import Usage
from rayramid.serve.webhooks import Webhooks


class Desk:
    """Admits jobs. Its length is how many are here at the moment.

    Args:
        store: keeps them.
        webhooks: keeps the events that are owed for them, if users may name URLs.
        refusal: says why a job can't be admitted now, if it can't.
        enter: takes up a job that is kept.
    """

    def __init__(
        self,
        store: Store,
        webhooks: Webhooks | None,
        refusal: Callable[[Job, KeyLimits], Admission | None],
        enter: Callable[[Job], None],
    ) -> None:
        self.usage = Usage(store.url)
        self._store = store
        self._webhooks = webhooks
        self._refusal = refusal
        self._enter = enter
        self._admitting: dict[str, asyncio.Task[Admission]] = {}
        # Of jobs that are being kept.
        self._owners: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._admitting)

    def arriving(self, owner: str) -> int:
        """How many of an owner's jobs will have been admitted in a moment."""
        return self._owners[owner]

    async def admit(self, job: Job, limits: KeyLimits) -> Admission:
        """Admit a job that its owner's limits allow; asking again while that goes on changes nothing."""
        if job.id not in self._admitting:
            self._admitting[job.id] = asyncio.create_task(self._admit(job, limits))
        # The one who asks may go away: what has begun to be admitted is.
        return await asyncio.shield(self._admitting[job.id])

    async def _admit(self, job: Job, limits: KeyLimits) -> Admission:
        try:
            if job.key is not None and await asyncio.to_thread(self._store.has, job.id):
                return Admission(True)
            if limits.tokens_per_day is not None:
                await self.usage.load(job.owner, time.time())
            # From here to the counts nothing is waited for: of those that come together only as many as may get by.
            refused = self._refusal(job, limits)
            if refused:
                return refused
            self.usage.charge(job)
            self._owners[job.owner] += 1
            try:
                await asyncio.to_thread(self._keep, job, limits)
            finally:
                self._owners -= Counter([job.owner])
            self._enter(job)
            return Admission(True)
        finally:
            del self._admitting[job.id]

    def _keep(self, job: Job, limits: KeyLimits) -> None:
        if limits.tokens_per_day is not None:
            self.usage.record(job)
        if self._webhooks:
            self._webhooks.owe(job)
        self._store.add(job)
