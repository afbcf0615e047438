"""What clients can do, a method each. Reads touch only the store, so they work while nothing runs."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Literal

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rayramid.models import storage
from rayramid.models.stores.store import MissingError
from rayramid.serve.acceptance import Acceptance
from rayramid.serve.errors import ApiError, bad_request, not_found
from rayramid.serve.job import ID_PATTERN, Job, Model, new_id, video_of
from rayramid.serve.media import file_response
from rayramid.serve.parsing import Parsed, read, read_creation, read_extension
from rayramid.serve.rewriter import Rewriter
from rayramid.serve.scheduler import Scheduler, UnavailableError
from rayramid.serve.spec import Limits
from rayramid.serve.store import Claim, Store
from rayramid.serve.watching import Stream, live_segments, server_sent_events
from rayramid.serve.wire import (
    KEY_LENGTH,
    ChangePrompt,
    CreateVideo,
    Errand,
    ExtendVideo,
    Health,
    PromptChanged,
    RemixVideo,
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
Make = Callable[[str], Awaitable[Job]]


class Endpoint:
    """Answers requests about videos.

    Args:
        model: the one that is served.
        store: where jobs live.
        scheduler: the broker.
        limits: of what a request may ask for.
        rewriter: writes prompts out, if there is one.
    """

    def __init__(
        self, model: Model, store: Store, scheduler: Scheduler, limits: Limits, rewriter: Rewriter | None
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._limits = limits
        self._rewriter = rewriter
        self._accept = Acceptance(model, limits)
        self._errands: set[asyncio.Task[None]] = set()

    # -- new videos ---------------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Video:
        """Start a video."""
        parsed = await read_creation(request, self._limits.upload_bytes)
        owner = _owner(request)

        async def make(job_id: str) -> Job:
            asked = parsed.request
            job = self._accept.creation(asked, job_id, owner, image=parsed.image is not None)
            if parsed.image is not None:
                await asyncio.to_thread(storage.write_atomic, self._store.image(job_id), parsed.image)
            return await self._rewritten(asked, job)

        return await self._once(request, parsed, make)

    async def remix(self, request: Request, video_id: str) -> Video:
        """Start a completed video again with another prompt."""
        parsed = await read(request, self._limits.upload_bytes, RemixVideo)
        source = await self._completed(video_id, "video_id")
        owner = _owner(request)

        async def make(job_id: str) -> Job:
            job = self._accept.remix(parsed.request, job_id, owner, source)
            if source.image:
                await self._copied(storage.copy_files, self._store.at(video_id), self._store.at(job_id), ["image"])
            return await self._rewritten(parsed.request, job)

        return await self._once(request, parsed, make)

    async def extend(self, request: Request) -> Video:
        """Make a completed video longer."""
        parsed = await read_extension(request, self._limits.upload_bytes)
        asked = parsed.request
        source = await self._completed(asked.video.id, "video")
        owner = _owner(request)

        async def make(job_id: str) -> Job:
            progress = await asyncio.to_thread(self._store.progress, source.id)
            prompts = progress.prompts if progress else tuple(source.brief.prompts.items())
            job = self._accept.extension(asked, job_id, owner, source, prompts)
            await self._copied(self._store.begin_with, job_id, source.id)
            return await self._rewritten(asked, job)

        return await self._once(request, parsed, make)

    async def _once(
        self, request: Request, parsed: Parsed[CreateVideo] | Parsed[RemixVideo] | Parsed[ExtendVideo], make: Make
    ) -> Video:
        """Make and submit a job; a request with an `Idempotency-Key` that was seen before gets the job of that time."""
        job_id, key = new_id(), request.headers.get("idempotency-key")
        if key is None:
            return await self._submit(await make(job_id))
        if not 1 <= len(key) <= KEY_LENGTH:
            message = f"An Idempotency-Key has 1 to {KEY_LENGTH} characters, this one {len(key)}."
            raise bad_request(message, "Idempotency-Key")
        name = hashlib.sha256(f"{_owner(request)} {key}".encode()).hexdigest()
        digest = hashlib.sha256(f"{request.url.path} {parsed.request.model_dump_json()}".encode())
        digest.update(parsed.image or b"")
        mine = Claim(job_id=job_id, request=digest.hexdigest())
        holds = await asyncio.to_thread(self._store.claim, name, mine)
        if holds.request != mine.request:
            message = "This Idempotency-Key came with another request before."
            raise ApiError(422, message, param="Idempotency-Key", code="idempotency_key_reused")
        if holds != mine:
            video = await asyncio.to_thread(self._store.video, holds.job_id)
            if video is not None:
                return video
        try:
            # The request that claimed the key may have died before its job was kept; then this one carries on.
            return await self._submit((await make(holds.job_id)).model_copy(update={"key": name}))
        except ApiError:
            if holds == mine:
                await asyncio.to_thread(self._store.release, name)
            raise

    async def _submit(self, job: Job) -> Video:
        admission = await self._scheduler.submit(job)
        if not admission.accepted:
            await asyncio.to_thread(storage.delete_tree, self._store.at(job.id))
        if admission.reason == "queue_full":
            message = f"The queue is full; try again in {admission.retry_after_s} s."
            headers = {"Retry-After": str(admission.retry_after_s)}
            raise ApiError(429, message, code="queue_full", headers=headers)
        if admission.reason == "too_large":
            raise bad_request(
                "A video of this size and length needs more memory than the server has; ask for a smaller or shorter "
                "one.",
                "size",
                "too_large",
            )
        # Another request with the same key may have brought it far already.
        return video_of(job, None, None) if job.key is None else await self.retrieve(job.id)

    async def _rewritten(self, request: Errand, job: Job) -> Job:
        if not request.rewrite_prompt:
            return job
        if self._rewriter is None:
            raise bad_request("This server has no language model that rewrites prompts.", "rewrite_prompt")
        # What an extended video has shown stays as it was.
        new = {unit: prompt for unit, prompt in job.brief.prompts.items() if unit >= job.given_units or job.image}
        written = dict(zip(new, await asyncio.gather(*map(self._rewriter.rewrite, new.values())), strict=True))
        (_, prompt), *later = (job.brief.prompts | written).items()
        brief = replace(job.brief, prompt=prompt, later_prompts=tuple(later))
        return job.model_copy(update={"brief": brief, "asked": (*job.asked, *new.items())})

    async def _completed(self, video_id: str, param: str) -> Job:
        video = await self._video(video_id, param)
        if video.status != "completed":
            message = f"Only a completed video can be taken further; {video_id} is {video.status}."
            raise bad_request(message, param, "video_not_completed")
        return await self._job(video_id, param)

    async def _copied(self, copy: Callable[..., None], *args: object) -> None:
        try:
            await asyncio.to_thread(copy, *args)
        except MissingError as error:
            raise bad_request("The video was deleted in this very moment.", "video", "video_not_found") from error

    # -- videos that are there ----------------------------------------------------------------------------------------

    async def retrieve(self, video_id: str) -> Video:
        """How a video stands now."""
        return await self._video(video_id, "video_id")

    async def list(self, after: str | None, limit: int, order: Order) -> VideoList:
        """One page; ids sort by time of creation."""
        if after is not None and not ID_PATTERN.fullmatch(after):
            raise bad_request(f"{after!r} is not the id of a video.", "after")
        ids = await asyncio.to_thread(self._store.newest_first)
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

    async def delete(self, video_id: str) -> VideoDeleted:
        """Forget a video; one that is being made is stopped first."""
        await self.cancel(video_id)
        await asyncio.to_thread(self._store.delete, video_id)
        return VideoDeleted(id=video_id)

    async def cancel(self, video_id: str) -> Video:
        """Stop a video; one that has ended stays as it is."""
        video = await self.retrieve(video_id)
        if video.status in ("completed", "failed"):
            return video
        await self._scheduler.cancel(video_id)
        return await self.retrieve(video_id)

    async def change_prompt(self, request: Request, video_id: str) -> PromptChanged:
        """Let the units that have not begun show something else; settled when this returns."""
        asked = (await read(request, self._limits.upload_bytes, ChangePrompt)).request
        job = await self._job(video_id, "video_id")
        progress = await asyncio.to_thread(self._store.progress, video_id)
        # A job that waits can still be told what to show from its picture on.
        first = progress.units_done if progress else 0 if job.image else job.given_units
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
        self, request: Request, video_id: str, variant: Variant, *, stream: bool, cancel_on_leave: bool
    ) -> Response:
        """A result; or with `stream` all that exists of a running video, and then the rest as it comes."""
        video = await self.retrieve(video_id)
        name, media_type = FILES[variant]
        if stream and variant == "video":
            if request.method == "HEAD":
                return Response(None, 200, {"Cache-Control": "no-store"}, media_type)
            segments = live_segments(self._store, self._scheduler, video_id)
            return Stream(segments, media_type, self._on_leave(video_id) if cancel_on_leave else None)
        if video.status == "completed" or (
            variant == "thumbnail" and await asyncio.to_thread(storage.exists, self._store.at(video_id, name))
        ):
            elsewhere = await asyncio.to_thread(
                self._store.presigned, video_id, name, media_type, method=request.method
            )
            if elsewhere is not None:
                return RedirectResponse(elsewhere, 307)
            file_name = f"{video_id}.{name.rpartition('.')[2]}"
            return await file_response(request, self._store.at(video_id, name), media_type, file_name)
        if video.error:
            raise bad_request(f"There is no video: {video.error.message}", "video_id", "video_failed")
        message = f"The video is not ready: it is {video.status}, {video.progress} % done."
        raise bad_request(message, "video_id", "video_not_ready")

    async def events(self, video_id: str, *, cancel_on_leave: bool) -> Response:
        """What happens to a video, as server-sent events."""
        job = await self._job(video_id, "video_id")
        events = server_sent_events(self._store, self._scheduler, job)
        return Stream(events, "text/event-stream", self._on_leave(video_id) if cancel_on_leave else None)

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

    async def _video(self, video_id: str, param: str) -> Video:
        video = await asyncio.to_thread(self._store.video, video_id) if ID_PATTERN.fullmatch(video_id) else None
        if video is None:
            raise not_found(video_id, param)
        return video

    async def _job(self, video_id: str, param: str) -> Job:
        job = await asyncio.to_thread(self._store.job, video_id) if ID_PATTERN.fullmatch(video_id) else None
        if job is None:
            raise not_found(video_id, param)
        return job


def _owner(request: Request) -> str:
    """Whose turn a job takes: a digest of the API key, the same for all who send none."""
    key = request.headers.get("authorization", "")
    return hashlib.sha256(key.encode()).hexdigest()[:16]
