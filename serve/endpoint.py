"""What clients can do with videos that are there. Reads touch only the store, so they work while nothing runs."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Literal

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rayramid.models import storage
from rayramid.serve.acceptance import check_lengths
from rayramid.serve.access import Caller
from rayramid.serve.errors import ApiError, bad_request
from rayramid.serve.finding import find_job, find_video
from rayramid.serve.job import ID_PATTERN
from rayramid.serve.media import file_response
from rayramid.serve.parsing import read
from rayramid.serve.safety import Judge, check_prompts
from rayramid.serve.scheduler import Scheduler, UnavailableError
from rayramid.serve.spec import Limits
from rayramid.serve.store import Store
from rayramid.serve.watching import Stream, live_segments, server_sent_events
from rayramid.serve.wire import (
    ChangePrompt,
    Health,
    PromptChanged,
    Video,
    VideoDeleted,
    VideoList,
)

READY_S = 5.0
Order = Literal["asc", "desc"]
Variant = Literal["video", "thumbnail", "spritesheet"]
FILES = {
    "video": ("video.mp4", "video/mp4"),
    "thumbnail": ("thumbnail.webp", "image/webp"),
    "spritesheet": ("spritesheet.webp", "image/webp"),
}


class Endpoint:
    """Answers requests about videos that are there.

    Args:
        store: where jobs live.
        scheduler: the broker.
        limits: of what a request may ask for.
        judge: of prompts, if there is one.
    """

    def __init__(self, store: Store, scheduler: Scheduler, limits: Limits, judge: Judge | None = None) -> None:
        self._store = store
        self._scheduler = scheduler
        self._limits = limits
        self._judge = judge
        self._errands: set[asyncio.Task[None]] = set()

    async def retrieve(self, caller: Caller, video_id: str) -> Video:
        """How a video stands now."""
        return await find_video(self._store, caller, video_id)

    async def list(self, caller: Caller, after: str | None, limit: int, order: Order) -> VideoList:
        """One page; ids sort by time of creation."""
        if after is not None and not ID_PATTERN.fullmatch(after):
            raise bad_request(f"{after!r} is not the id of a video.", "after")
        ids = await asyncio.to_thread(self._store.newest_first, None if caller.sees_all else caller.owner)
        if order == "asc":
            ids.reverse()
        if after is not None:
            ids = [each for each in ids if (each > after if order == "asc" else each < after)]
        found = await asyncio.gather(*(asyncio.to_thread(self._store.video, each) for each in ids[:limit]))
        page = [video for video in found if video]
        return VideoList(
            data=page,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=len(ids) > limit,
        )

    async def delete(self, caller: Caller, video_id: str) -> VideoDeleted:
        """Forget a video; one that is being made is stopped first."""
        await find_job(self._store, caller, video_id)
        if await asyncio.to_thread(self._store.is_open, video_id):
            await self._scheduler.delete(video_id)
        else:
            await asyncio.to_thread(self._store.delete, video_id)
        return VideoDeleted(id=video_id)

    async def cancel(self, caller: Caller, video_id: str) -> Video:
        """Stop a video; one that has ended stays as it is."""
        video = await self.retrieve(caller, video_id)
        if video.status in ("completed", "failed"):
            return video
        await self._scheduler.cancel(video_id)
        return await self.retrieve(caller, video_id)

    async def change_prompt(self, request: Request, caller: Caller, video_id: str) -> PromptChanged:
        """Let the units that have not begun show something else; settled when this returns."""
        asked = (await read(request, self._limits, ChangePrompt)).request
        check_lengths(self._limits, prompt=asked.prompt)
        await check_prompts(self._judge, asked.prompt)
        job = await find_job(self._store, caller, video_id)
        progress = await asyncio.to_thread(self._store.progress, video_id)
        # A job that waits can still be told what to show from its picture on.
        first = max(0 if job.image else job.given_units, progress.units_done if progress else 0)
        unit = None
        if await asyncio.to_thread(self._store.is_open, video_id):
            unit = await asyncio.to_thread(self._store.change_prompt, video_id, first, job.brief.units, asked.prompt)
        if unit is None:
            raise bad_request(
                "Every unit of this video has begun; extend it with the new prompt.", "prompt", "too_late"
            )
        return PromptChanged(id=video_id, prompt=asked.prompt, from_second=job.brief.second_of(unit), from_unit=unit)

    # -- looking at them ----------------------------------------------------------------------------------------------

    async def content(
        self,
        request: Request,
        caller: Caller,
        video_id: str,
        variant: Variant,
        *,
        stream: bool,
        cancel_on_leave: bool,
    ) -> Response:
        """A result; or with `stream` all that exists of a running video, and then the rest as it comes.

        What is streamed comes from here, also where the store could give it out.
        """
        video = await self.retrieve(caller, video_id)
        name, media_type = FILES[variant]
        if stream and variant == "video":
            if request.method == "HEAD":
                return Response(None, 200, {"Cache-Control": "no-store"}, media_type)
            segments = live_segments(self._store, self._scheduler, video_id)
            return Stream(segments, media_type, caller, self._on_leave(video_id) if cancel_on_leave else None)
        if video.status == "completed" or (
            variant == "thumbnail" and await asyncio.to_thread(storage.exists, self._store.at(video_id, name))
        ):
            elsewhere = await asyncio.to_thread(
                self._store.presigned, video_id, name, media_type, method=request.method
            )
            if elsewhere is not None and not stream:
                return RedirectResponse(elsewhere, 307)
            file_name = f"{video_id}.{name.rpartition('.')[2]}"
            return await file_response(request, self._store.at(video_id, name), media_type, file_name)
        if video.error:
            raise bad_request(f"There is no video: {video.error.message}", "video_id", "video_failed")
        message = f"The video is not ready: it is {video.status}, {video.progress} % done."
        raise bad_request(message, "video_id", "video_not_ready")

    async def events(self, caller: Caller, video_id: str, *, cancel_on_leave: bool) -> Response:
        """What happens to a video, as server-sent events."""
        job = await find_job(self._store, caller, video_id)
        events = server_sent_events(self._store, self._scheduler, job)
        return Stream(events, "text/event-stream", caller, self._on_leave(video_id) if cancel_on_leave else None)

    async def ready(self) -> Health:
        """Whether a worker answers."""
        try:
            async with asyncio.timeout(READY_S):
                await self._scheduler.ready()
        except (TimeoutError, UnavailableError) as error:
            raise ApiError(503, "No sampler answers yet.", code="not_ready", headers={"Retry-After": "5"}) from error
        return Health(status="ready")

    def _on_leave(self, video_id: str) -> Callable[[], None]:
        """What to call when a client goes away who wants the video only while it is there."""

        async def cancel() -> None:
            if await asyncio.to_thread(self._store.is_open, video_id):
                await self._scheduler.cancel(video_id)

        return lambda: self._start(cancel())

    def _start(self, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
