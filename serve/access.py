"""Who may ask for what: requests are admitted by their API key, and videos belong to the key that asked for them."""

import asyncio
import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import Request

from rayramid.serve.errors import ApiError
from rayramid.serve.job import Job
from rayramid.serve.keys import KeyRing
from rayramid.serve.spec import KeyLimits

# A key that was made or revoked counts so much later at the latest.
REFRESH_S = 2.0
WINDOW_S = 60.0
UNLIMITED = KeyLimits()
NO_KEY = "Send your API key as a header, Authorization: Bearer rr_…; the server's operator makes one."
WRONG_KEY = "This API key is not known here."
REVOKED = "This API key was revoked."


class Streams:
    """How many connections of one key watch something."""

    def __init__(self) -> None:
        self._open = 0

    @contextmanager
    def one_more(self, limit: int | None) -> Iterator[None]:
        """Hold a connection open.

        Raises:
            ApiError: 429 if there are as many as there may be.
        """
        if limit is not None and self._open >= limit:
            message = f"This key may watch with {limit} connections at a time; end another one first."
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": "5"})
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Args:
        owner: who its jobs belong to, and whose turn they take.
        limits: of what it may ask for.
        sees_all: everybody's jobs are its own, since there are no keys.
        streams: what it watches now.
    """

    owner: str
    limits: KeyLimits = UNLIMITED
    sees_all: bool = False
    streams: Streams = field(default_factory=Streams)

    def owns(self, job: Job) -> bool:
        """Whether a job may be shown to it."""
        return self.sees_all or job.owner == self.owner


class Access:
    """Tells callers by their keys.

    Args:
        ring: the keys; without one everybody is let in.
        limits: of keys that have none of their own.
        gateways: that share the requests equally; each allows its share of those per minute, and of connections.
    """

    def __init__(self, ring: KeyRing | None, limits: KeyLimits, gateways: int = 1) -> None:
        self._ring = ring
        self._limits = limits
        self._gateways = gateways
        self._refreshed = -math.inf
        self._refreshing = asyncio.Lock()
        self._pace: defaultdict[str, Pace] = defaultdict(Pace)
        self._streams: defaultdict[str, Streams] = defaultdict(Streams)

    @property
    def keyed(self) -> bool:
        """Whether a key is needed."""
        return self._ring is not None

    async def caller(self, request: Request) -> Caller:
        """Who sent a request.

        Raises:
            ApiError: 401 without a key that is known, 403 with a revoked one, 429 for too many requests.
        """
        sent = request.headers.get("authorization", "")
        if self._ring is None:
            return Caller(hashlib.sha256(sent.encode()).hexdigest()[:16], sees_all=True)
        scheme, _, secret = sent.partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise _unauthorized(NO_KEY, None)
        await self._refresh(self._ring)
        key = self._ring.find(secret.strip())
        if key is None:
            raise _unauthorized(WRONG_KEY, "invalid_api_key")
        if key.revoked_at is not None:
            raise ApiError(403, REVOKED, code="api_key_revoked")
        limits = key.limits.over(self._limits)
        if limits.requests_per_minute is not None:
            share = limits.requests_per_minute / self._gateways
            wait_s = self._pace[key.id].step(share, time.monotonic())
            if wait_s:
                message = f"This key may send {limits.requests_per_minute} requests per minute; go on in {wait_s} s."
                raise ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": str(wait_s)})
        if limits.streams is not None:
            limits = limits.model_copy(update={"streams": math.ceil(limits.streams / self._gateways)})
        return Caller(key.id, limits, streams=self._streams[key.id])

    async def _refresh(self, ring: KeyRing) -> None:
        async with self._refreshing:
            if time.monotonic() - self._refreshed >= REFRESH_S:
                await asyncio.to_thread(ring.refresh)
                self._refreshed = time.monotonic()


class Pace:
    """A bucket that holds a minute's requests, at least one, and fills as time passes."""

    def __init__(self) -> None:
        self._taken = 0.0
        self._last = 0.0

    def step(self, per_minute: float, now: float) -> int:
        """Take a request out: 0, or if there is none the whole seconds until there is."""
        per_second, holds = per_minute / WINDOW_S, max(1.0, per_minute)
        self._taken = max(0.0, self._taken - (now - self._last) * per_second)
        self._last = now
        if self._taken + 1 > holds:
            return max(1, math.ceil((self._taken + 1 - holds) / per_second))
        self._taken += 1
        return 0


def _unauthorized(message: str, code: str | None) -> ApiError:
    return ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})
