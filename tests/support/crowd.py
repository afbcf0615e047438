"""Clients of an endpoint who watch, leave, cancel, delete or forget videos. Seeded, so that a crowd can come again."""

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

PROMPTS = [f"prompt number {number}" for number in range(16)]
OWNERS = 8
TIMEOUT = httpx.Timeout(120.0, read=None)
# A client that is told to come back later does not wait for ever in a test of minutes.
LONGEST_WAIT_S = 5.0


@dataclass
class Crowd:
    """What all clients have met.

    Args:
        url: the endpoint, without `/v1`.
    """

    url: str
    # Answers by method and status; failures of connections count as status 0.
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    did: Counter[str] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    # 429s that did not say when to come back.
    rude: int = 0

    async def come(self, clients: int, seconds: float) -> None:
        """So many clients create videos, and do something with each, for so long."""
        until = time.monotonic() + seconds
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=f"{self.url}/v1", timeout=TIMEOUT, limits=limits) as http:
            await asyncio.gather(*(self._client(http, random.Random(seed), until) for seed in range(clients)))

    async def _client(self, http: httpx.AsyncClient, chance: random.Random, until: float) -> None:
        owner = {"Authorization": f"Bearer owner-{chance.randrange(OWNERS)}"}
        while time.monotonic() < until:
            wanted = {
                "prompt": chance.choice(PROMPTS),
                "seconds": chance.randint(1, 32) / 8,
                "steps": chance.randint(1, 4),
                "priority": chance.randint(0, 2),
                "seed": chance.randrange(1000),
            }
            answer = await self._ask(http, "POST", "/videos", json=wanted, headers=owner)
            if answer is None or answer.status_code != httpx.codes.OK:
                await self._come_back(answer, chance)
                continue
            video_id = answer.json()["id"]
            self.accepted.add(video_id)
            what = chance.choice((self._watch, self._leave, self._follow, self._cancel, self._delete, self._forget))
            self.did[what.__name__] += 1
            await what(http, video_id, chance)

    async def _come_back(self, answer: httpx.Response | None, chance: random.Random) -> None:
        wait = "" if answer is None else answer.headers.get("retry-after", "")
        self.rude += answer is not None and answer.status_code == httpx.codes.TOO_MANY_REQUESTS and not wait.isdigit()
        await asyncio.sleep(chance.uniform(0.5, 1.0) * min(LONGEST_WAIT_S, float(wait or 1)))

    async def _watch(self, http: httpx.AsyncClient, video_id: str, chance: random.Random) -> None:
        await self._stream(http, f"/videos/{video_id}/content?stream=1", None)

    async def _leave(self, http: httpx.AsyncClient, video_id: str, chance: random.Random) -> None:
        path = f"/videos/{video_id}/content?stream=1&cancel_on_disconnect=true"
        await self._stream(http, path, chance.uniform(0.0, 3.0))

    async def _follow(self, http: httpx.AsyncClient, video_id: str, chance: random.Random) -> None:
        await self._stream(http, f"/videos/{video_id}/events", chance.choice((None, 1.0)))

    async def _cancel(self, http: httpx.AsyncClient, video_id: str, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        await self._ask(http, "POST", f"/videos/{video_id}/cancel")

    async def _delete(self, http: httpx.AsyncClient, video_id: str, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        await self._ask(http, "DELETE", f"/videos/{video_id}")
        self.deleted.add(video_id)

    async def _forget(self, http: httpx.AsyncClient, video_id: str, chance: random.Random) -> None:
        await self._ask(http, "GET", f"/videos/{video_id}")

    async def _ask(self, http: httpx.AsyncClient, method: str, path: str, **content: object) -> httpx.Response | None:
        try:
            answer = await http.request(method, path, **content)
        except httpx.TransportError:
            self.answers[method, 0] += 1
            return None
        self.answers[method, answer.status_code] += 1
        return answer

    async def _stream(self, http: httpx.AsyncClient, path: str, patience_s: float | None) -> None:
        """Take what comes until it ends, or for so long."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s), http.stream("GET", path) as stream:
                    self.answers["GET", stream.status_code] += 1
                    async for _ in stream.aiter_raw():
                        pass
        except httpx.TransportError:
            self.answers["GET", 0] += 1
