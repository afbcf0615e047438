"""Requests that begin a video: each is accepted, gets the files it starts from, and is submitted once."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

from starlette.requests import Request

from rayramid.models import storage
from rayramid.models.stores.store import MissingError
from rayramid.serve.acceptance import Acceptance
from rayramid.serve.access import Caller
from rayramid.serve.catalogue import Catalogue
from rayramid.serve.errors import ApiError, bad_request
from rayramid.serve.finding import find_job, find_video
from rayramid.serve.job import Job, new_id, video_of
from rayramid.serve.offer import OfferedModel, offer
from rayramid.serve.parsing import Parsed, read, read_creation, read_extension
from rayramid.serve.picture import PictureDecoder
from rayramid.serve.remote import Remote, RemoteError, check_url
from rayramid.serve.rewriter import Rewriter
from rayramid.serve.safety import Judge, check_prompts
from rayramid.serve.scheduler import Scheduler
from rayramid.serve.spec import Limits, RemoteOptions
from rayramid.serve.store import Claim, Store
from rayramid.serve.tracing import Traces
from rayramid.serve.wire import KEY_LENGTH, CreateVideo, Errand, ExtendVideo, RemixVideo, Video

NOTHING = RemoteOptions()
Make = Callable[[str], Awaitable[Job]]


class NewVideos:
    """Answers requests for new videos.

    Args:
        catalogue: the models that are served.
        store: where jobs live.
        scheduler: the broker.
        limits: of what a request may ask for.
        rewriter: writes prompts out, if there is one.
        remote: asks URLs of users, as far as the options allow that.
        judge: of prompts, if there is one.
        traces: of requests.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        scheduler: Scheduler,
        limits: Limits,
        rewriter: Rewriter | None = None,
        remote: RemoteOptions = NOTHING,
        judge: Judge | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._limits = limits
        self._rewriter = rewriter
        self._judge = judge
        self._traces = traces or Traces()
        self._webhooks = remote.webhooks
        self._remote = Remote(remote) if remote.images else None
        self._decoder = PictureDecoder(limits.image_pixels)
        self._accept = Acceptance(limits)
        self._catalogue = catalogue

    async def offers(self) -> list[OfferedModel]:
        """What may be asked for, by model."""
        return [offer(model, self._limits) for model in await self._catalogue.offered()]

    async def create(self, request: Request, caller: Caller) -> Video:
        """Start a video."""
        parsed = await read_creation(request, self._limits, self._decoder, self._remote)

        async def make(job_id: str) -> Job:
            asked = parsed.request
            model = await self._catalogue.choose(asked.model, job_id)
            job = self._accept.creation(asked, model, job_id, caller.owner, image=parsed.image is not None)
            if parsed.image is not None:
                await asyncio.to_thread(storage.write_atomic, self._store.image(job_id), parsed.image)
            return await self._rewritten(asked, job)

        return await self._once(request, caller, parsed, make)

    async def remix(self, request: Request, caller: Caller, video_id: str) -> Video:
        """Start a completed video again with another prompt."""
        parsed = await read(request, self._limits, RemixVideo)
        source = await self._completed(caller, video_id, "video_id")

        async def make(job_id: str) -> Job:
            model = await self._catalogue.pinned(source)
            job = self._accept.remix(parsed.request, model, job_id, caller.owner, source)
            if source.image:
                await self._copied(storage.copy_files, self._store.at(video_id), self._store.at(job_id), ["image"])
            return await self._rewritten(parsed.request, job)

        return await self._once(request, caller, parsed, make)

    async def extend(self, request: Request, caller: Caller) -> Video:
        """Make a completed video longer."""
        parsed = await read_extension(request, self._limits)
        asked = parsed.request
        source = await self._completed(caller, asked.video.id, "video")

        async def make(job_id: str) -> Job:
            model = await self._catalogue.pinned(source)
            progress = await asyncio.to_thread(self._store.progress, source.id)
            prompts = progress.prompts if progress else tuple(source.brief.prompts.items())
            job = self._accept.extension(asked, model, job_id, caller.owner, source, prompts)
            await self._copied(self._store.begin_with, job_id, source.id)
            return await self._rewritten(asked, job)

        return await self._once(request, caller, parsed, make)

    async def _once(
        self,
        request: Request,
        caller: Caller,
        parsed: Parsed[CreateVideo] | Parsed[RemixVideo] | Parsed[ExtendVideo],
        make: Make,
    ) -> Video:
        """Make and submit a job; a request with an `Idempotency-Key` that was seen before gets the job of that time."""
        if parsed.request.webhook_url is not None:
            self._check_webhook(parsed.request.webhook_url)
        job_id = new_id()
        with self._traces.creation(job_id, request.headers) as trace:

            async def traced(job_id: str) -> Job:
                return (await make(job_id)).model_copy(update={"trace": trace})

            return await self._keyed(request, caller, parsed, traced, job_id)

    async def _keyed(
        self,
        request: Request,
        caller: Caller,
        parsed: Parsed[CreateVideo] | Parsed[RemixVideo] | Parsed[ExtendVideo],
        make: Make,
        job_id: str,
    ) -> Video:
        key = request.headers.get("idempotency-key")
        if key is None:
            return await self._submit(caller, await self._made(make, job_id))
        if not 1 <= len(key) <= KEY_LENGTH:
            message = f"An Idempotency-Key has 1 to {KEY_LENGTH} characters, this one {len(key)}."
            raise bad_request(message, "Idempotency-Key")
        name = hashlib.sha256(f"{caller.owner} {key}".encode()).hexdigest()
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
            return await self._submit(caller, (await self._made(make, holds.job_id)).model_copy(update={"key": name}))
        except ApiError:
            if holds == mine:
                await asyncio.to_thread(self._store.release, name)
            raise

    async def _made(self, make: Make, job_id: str) -> Job:
        """The job that a request asks for; what it has stored goes with it if it is refused."""
        try:
            job = await make(job_id)
            await check_prompts(self._judge, *(text for _, text in (*job.asked, *job.brief.prompts.items())))
        except ApiError:
            # Another request with the same key may have been luckier.
            if not await asyncio.to_thread(self._store.has, job_id):
                await asyncio.to_thread(storage.delete_tree, self._store.at(job_id))
            raise
        return job

    def _check_webhook(self, url: str) -> None:
        if not self._webhooks:
            raise bad_request("This server sends no events.", "webhook_url", "not_supported")
        try:
            check_url(url)
        except RemoteError as error:
            raise bad_request(f"webhook_url: {error}.", "webhook_url") from error

    async def _submit(self, caller: Caller, job: Job) -> Video:
        refusal = (await self._scheduler.submit(job, caller.limits)).refusal()
        if refusal:
            await asyncio.to_thread(storage.delete_tree, self._store.at(job.id))
            raise refusal
        # Another request with the same key may have brought it far already.
        return video_of(job, None, None) if job.key is None else await find_video(self._store, caller, job.id)

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

    async def _completed(self, caller: Caller, video_id: str, param: str) -> Job:
        video = await find_video(self._store, caller, video_id, param)
        if video.status != "completed":
            message = f"Only a completed video can be taken further; {video_id} is {video.status}."
            raise bad_request(message, param, "video_not_completed")
        return await find_job(self._store, caller, video_id, param)

    async def _copied(self, copy: Callable[..., None], *args: object) -> None:
        try:
            await asyncio.to_thread(copy, *args)
        except MissingError as error:
            raise bad_request("The video was deleted in this very moment.", "video", "video_not_found") from error
