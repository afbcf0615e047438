"""Watching a video while it is made: its segments, and events about it. Nothing is asked while nothing happens."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from rayramid.models import storage
from rayramid.models.stores.store import MissingError
from rayramid.serve.access import Caller
from rayramid.serve.job import Job, Standing, event_of
from rayramid.serve.scheduler import Scheduler, UnavailableError
from rayramid.serve.store import Store

log = logging.getLogger(__name__)

RETRY_S = 0.5
# What lies between clients and servers closes connections that are silent for a minute.
PING_S = 15.0


class Stream(StreamingResponse):
    """A body that comes piece by piece for as long as it takes.

    Args:
        content: the pieces.
        media_type: of all of them.
        caller: whose connection it is.
        on_leave: called if the client goes away before the end.
    """

    def __init__(
        self, content: AsyncIterator[bytes], media_type: str, caller: Caller, on_leave: Callable[[], None] | None
    ) -> None:
        # Between the server and the client nothing shall collect pieces.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, 200, headers, media_type)
        self._caller = caller
        self._on_leave = on_leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces until there are no more or nobody is there to take them."""
        with self._caller.streams.one_more(self._caller.limits.streams):
            await self._send(receive, send)

    async def _send(self, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self.stream_response(send))
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            complete = sending.done() and not sending.cancelled() and sending.exception() is None
            if self._on_leave and not complete:
                self._on_leave()
            sending.cancel()
            leaving.cancel()


async def standings(store: Store, scheduler: Scheduler, job_id: str) -> AsyncGenerator[Standing, None]:
    """Where a job stands, until it has ended; a broker that dies is waited for."""
    while True:
        try:
            async with aclosing(scheduler.events(job_id)) as told:
                async for standing in told:
                    yield standing
        except UnavailableError:
            log.info("the broker is gone; asking the next one", extra={"job": job_id})
        if not await asyncio.to_thread(store.is_open, job_id):
            return
        await asyncio.sleep(RETRY_S)


async def live_segments(store: Store, scheduler: Scheduler, job_id: str) -> AsyncGenerator[bytes, None]:
    """The video as fragmented MP4 from its first frame on: what exists, then every unit as it comes, until the end."""
    sent = 0
    try:
        async with aclosing(_playable(store, scheduler, job_id)) as playable:
            async for units in playable:
                if units and not sent:
                    yield await asyncio.to_thread(storage.read_bytes, store.init_segment(job_id))
                while sent < units:
                    yield await asyncio.to_thread(storage.read_bytes, store.segment(job_id, sent))
                    sent += 1
    except MissingError:
        log.info("a video was deleted while it was watched", extra={"job": job_id})


async def _playable(store: Store, scheduler: Scheduler, job_id: str) -> AsyncGenerator[int, None]:
    async with aclosing(standings(store, scheduler, job_id)) as told:
        async for standing in told:
            yield standing.progress.units_done if standing.progress else 0
    yield await asyncio.to_thread(store.units, job_id)


async def server_sent_events(store: Store, scheduler: Scheduler, job: Job) -> AsyncGenerator[bytes, None]:
    """`progress` events while a video is made; then `completed` or `failed` with the video, if it was not deleted."""
    async with aclosing(standings(store, scheduler, job.id)) as told:
        waiting = asyncio.ensure_future(anext(told, None))
        try:
            while True:
                await asyncio.wait((waiting,), timeout=PING_S)
                if not waiting.done():
                    yield KEEPALIVE_COMMENT
                    continue
                standing = waiting.result()
                if standing is None:
                    break
                yield format_sse_event(event="progress", data_str=event_of(job, standing).model_dump_json())
                waiting = asyncio.ensure_future(anext(told, None))
        finally:
            waiting.cancel()
            await asyncio.wait((waiting,))
    video = await asyncio.to_thread(store.video, job.id)
    if video is not None:
        yield format_sse_event(event=video.status, data_str=video.model_dump_json())
