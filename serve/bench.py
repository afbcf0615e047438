"""Loading an endpoint and measuring what its clients see."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import httpx
import numpy as np

from rayramid.serve import calls
from rayramid.serve.client import STREAM_TIMEOUT, TIMEOUT
from rayramid.serve.connection import authorization, base_of, check, reaching
from rayramid.serve.wire import CreateVideo, Video

PERCENTILES = (50, 90, 99)
# Every segment of fragmented MP4 has one.
SEGMENT = b"moof"


@dataclass(frozen=True)
class Visit:
    """One client's video; times are in seconds.

    Args:
        first_s: from the request to the first segment.
        total_s: from the request to the end of the video.
        gaps_s: between one segment and the next.
        video_s: seconds of video that came.
        failure: why there is none: `http 429`, the code of the video's error, or what broke the connection.
    """

    first_s: float = 0.0
    total_s: float = 0.0
    gaps_s: tuple[float, ...] = ()
    video_s: float = 0.0
    failure: str | None = None


@dataclass(frozen=True)
class Report:
    """What a load has shown; times in seconds, by percentile (`p50`, …), of the videos that were completed."""

    requests: int
    concurrency: int
    wall_s: float
    completed: int
    failures: dict[str, int]
    videos_per_minute: float
    video_seconds_per_second: float
    first_segment_s: dict[str, float]
    segment_gap_s: dict[str, float]
    whole_video_s: dict[str, float]


async def bench(
    url: str,
    wanted: Sequence[CreateVideo],
    *,
    concurrency: int,
    api_key: str | None = None,
    keep: bool = False,
    on_visit: Callable[[int], None] = lambda done: None,
) -> Report:
    """Ask an endpoint for videos, so many at a time, and watch each while it is made.

    Args:
        url: the endpoint, without `/v1`.
        wanted: what to ask for, in order.
        concurrency: clients; each asks for the next video when it has seen its last.
        api_key: of all clients.
        keep: leave the videos there; else each is deleted when it was seen.
        on_visit: called with how many are done.

    Raises:
        UserError: nobody answers, or the key is not let in.
    """
    visits: list[Visit] = []
    remaining = iter(wanted)
    http = httpx.AsyncClient(
        base_url=base_of(url),
        headers=authorization(api_key),
        timeout=TIMEOUT,
        limits=httpx.Limits(max_connections=None),
    )

    async def client() -> None:
        for each in remaining:
            visits.append(await _visit(http, each, keep=keep))
            on_visit(len(visits))

    async with http:
        with reaching():
            welcome = await http.get("/videos", params={"limit": 1})
        check(welcome, welcome.content)
        started = time.monotonic()
        await asyncio.gather(*(client() for _ in range(concurrency)))
        return summarise(visits, concurrency, time.monotonic() - started)


async def _visit(http: httpx.AsyncClient, wanted: CreateVideo, *, keep: bool) -> Visit:
    call = calls.create(wanted, None, None)
    began = time.monotonic()
    times: list[float] = []
    try:
        answer = await http.request(call.method, call.path, json=call.body)
        if not answer.is_success:
            return Visit(failure=f"http {answer.status_code}")
        video = Video.model_validate_json(answer.content)
        path = calls.live(video.id, cancel_on_leave=True)
        async with http.stream("GET", path, timeout=STREAM_TIMEOUT, follow_redirects=True) as stream:
            tail = b""
            async for data in stream.aiter_raw():
                times += [time.monotonic()] * (tail + data).count(SEGMENT)
                tail = data[-len(SEGMENT) + 1 :]
        ended = time.monotonic()
        video = Video.model_validate_json((await http.get(f"/videos/{video.id}")).content)
        if not keep:
            await http.delete(f"/videos/{video.id}")
    except httpx.TransportError as error:
        return Visit(failure=type(error).__name__)
    if video.error:
        return Visit(failure=video.error.code)
    gaps = tuple(float(gap) for gap in np.diff(times))
    return Visit(times[0] - began, ended - began, gaps, video.frames / video.fps)


def summarise(visits: Sequence[Visit], concurrency: int, wall_s: float) -> Report:
    """The report of a load that took `wall_s` seconds."""
    done = [visit for visit in visits if visit.failure is None]
    return Report(
        requests=len(visits),
        concurrency=concurrency,
        wall_s=round(wall_s, 3),
        completed=len(done),
        failures=dict(Counter(visit.failure for visit in visits if visit.failure is not None)),
        videos_per_minute=round(60 * len(done) / wall_s, 3),
        video_seconds_per_second=round(sum(visit.video_s for visit in done) / wall_s, 3),
        first_segment_s=_percentiles(visit.first_s for visit in done),
        segment_gap_s=_percentiles(gap for visit in done for gap in visit.gaps_s),
        whole_video_s=_percentiles(visit.total_s for visit in done),
    )


def _percentiles(seconds: Iterable[float]) -> dict[str, float]:
    values = list(seconds)
    return {f"p{rank}": round(float(np.percentile(values, rank)), 3) for rank in PERCENTILES} if values else {}
