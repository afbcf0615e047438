"""Events to the URLs that jobs name: `video.completed` and `video.failed`, as OpenAI sends and signs them.

An event that is owed stands in the store from the admission of its job until it was delivered or given up, so that no
death of a broker loses it; it may come more than once then, with the same `webhook-id`.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Sequence

from rayramid.models import storage
from rayramid.models.stores.store import MissingError
from rayramid.serve.job import Job, Outcome, Record
from rayramid.serve.keys import KeyRing
from rayramid.serve.remote import Remote, RemoteError
from rayramid.serve.store import Store

log = logging.getLogger(__name__)

# After each try that failed; three days in all, as OpenAI's.
DELAYS_S = (5.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0, 41 * 3600.0)
AT_ONCE = 16
GONE = 410


class Owed(Record):
    """An event that is to be delivered.

    webhooks/<id>.json    of a job that named a URL
    """

    job_id: str
    owner: str
    url: str
    tries: int = 0
    next_at: float = 0.0


class Webhooks:
    """Delivers the events of one store; one process does.

    Args:
        store: where jobs live.
        ring: the keys, whose secrets sign.
        remote: asks the URLs.
        delays_s: after each try that failed, until the next.
    """

    def __init__(self, store: Store, ring: KeyRing, remote: Remote, delays_s: Sequence[float] = DELAYS_S) -> None:
        self._store = store
        self._ring = ring
        self._remote = remote
        self._delays_s = delays_s
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._free = asyncio.Semaphore(AT_ONCE)

    async def recover(self) -> None:
        """Go on with what is owed for jobs that have ended."""
        for job_id in await asyncio.to_thread(self._ended):
            self._start(job_id)

    def owe(self, job: Job) -> None:
        """Keep that an event is owed when a new job ends, if it names a URL; blocks."""
        if job.webhook_url is not None:
            self._write(Owed(job_id=job.id, owner=job.owner, url=job.webhook_url))

    def ended(self, job: Job) -> None:
        """Deliver what is owed for a job."""
        if job.webhook_url is not None:
            self._start(job.id)

    def _ended(self) -> list[str]:
        urls = storage.list_files(storage.join(self._store.url, "webhooks"))
        ids = [url.rpartition("/")[2].removesuffix(".json") for url in urls]
        return [job_id for job_id in ids if not self._store.is_open(job_id)]

    def _start(self, job_id: str) -> None:
        if job_id not in self._under_way:
            task = self._under_way[job_id] = asyncio.create_task(self._deliver(job_id))
            task.add_done_callback(lambda _: self._under_way.pop(job_id))

    async def _deliver(self, job_id: str) -> None:
        owed = await asyncio.to_thread(self._read, job_id)
        while owed is not None:
            await asyncio.sleep(max(0.0, owed.next_at - time.time()))
            async with self._free:
                settled = await self._try(owed)
            if settled or owed.tries == len(self._delays_s):
                log.log(
                    logging.INFO if settled else logging.WARNING,
                    "event settled" if settled else "event given up",
                    extra={"job": job_id, "tries": owed.tries + 1},
                )
                await asyncio.to_thread(storage.delete, self._at(job_id))
                return
            next_at = time.time() + self._delays_s[owed.tries]
            owed = owed.model_copy(update={"tries": owed.tries + 1, "next_at": next_at})
            await asyncio.to_thread(self._write, owed)

    async def _try(self, owed: Owed) -> bool:
        """Whether there is nothing more to do: it was delivered, is not wanted any more, or has lost its job or key."""
        outcome = await asyncio.to_thread(self._store.outcome, owed.job_id)
        key = await asyncio.to_thread(self._ring.get, owed.owner)
        if outcome is None or key is None or key.revoked_at is not None:
            return True
        name, body = event(owed.job_id, outcome)
        headers = {"Content-Type": "application/json", **signature(key.webhook_secret, name, int(time.time()), body)}
        try:
            status = await self._remote.post(owed.url, headers, body)
        except RemoteError as error:
            log.info("event not delivered", extra={"job": owed.job_id, "error": str(error)})
            return False
        log.info("event answered", extra={"job": owed.job_id, "status": status})
        return 200 <= status < 300 or status == GONE

    def _read(self, job_id: str) -> Owed | None:
        try:
            return Owed.model_validate_json(storage.read_bytes(self._at(job_id)))
        except MissingError:
            return None

    def _write(self, owed: Owed) -> None:
        storage.write_atomic(self._at(owed.job_id), owed.model_dump_json().encode())

    def _at(self, job_id: str) -> str:
        return storage.join(self._store.url, "webhooks", f"{job_id}.json")


def event(job_id: str, outcome: Outcome) -> tuple[str, bytes]:
    """The id and the body of the event that tells of a job's end."""
    name = f"evt_{job_id.removeprefix('video_')}"
    body = {
        "id": name,
        "object": "event",
        "type": f"video.{outcome.status}",
        "created_at": outcome.ended_at,
        "data": {"id": job_id},
    }
    return name, json.dumps(body).encode()


def signature(secret: str, name: str, now: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows who sent a body and when (standardwebhooks.com)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{name}.{now}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
