"""The HTTP API: OpenAI's `/v1/videos`, and what a model that makes videos piece by piece can do beyond it.

It keeps no state. Reads touch only the store, so they work while nothing generates; creating and cancelling ask the
broker.
"""

import asyncio
import hashlib
from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rayramid.models import storage
from rayramid.serve.broker import Admission
from rayramid.serve.errors import ApiError, ErrorBody, bad_request, not_found
from rayramid.serve.job import ID_PATTERN, Job, Model, accept
from rayramid.serve.media import file_response, live_response
from rayramid.serve.parsing import IMAGE, read_creation
from rayramid.serve.spec import Limits
from rayramid.serve.store import Store
from rayramid.serve.wire import CreateVideo, Health, Video, VideoDeleted, VideoList

READY_S = 5.0
Responses = dict[int | str, dict[str, Any]]
ERRORS: Responses = {"default": {"model": ErrorBody, "description": "What is wrong, and with which parameter"}}
BINARY = {"schema": {"type": "string", "format": "binary"}}
MEDIA = {"video/mp4": BINARY, "image/webp": BINARY}
CONTENT: Responses = {
    200: {"description": "The bytes", "content": MEDIA},
    206: {"description": "The range that was asked for", "content": MEDIA},
    **ERRORS,
}


class Scheduler(Protocol):
    """What the gateway asks of the broker, wherever that runs."""

    async def submit(self, job: Job) -> Admission:
        """Admit a job, or say when to come back."""

    async def cancel(self, job_id: str) -> None:
        """End a job."""

    async def ready(self) -> None:
        """Return once a worker answers."""


def create_app(model: Model, store: Store, scheduler: Scheduler, limits: Limits) -> FastAPI:
    """The ASGI app."""
    app = FastAPI(title="rayramid", description="Videos by pyramidal flow matching", docs_url=None, redoc_url=None)
    app.state.endpoint = Endpoint(model, store, scheduler, limits)
    _add_errors(app)
    _add_routes(app, app.state.endpoint)
    return app


class Endpoint:
    """One method per thing that a client can do."""

    def __init__(self, model: Model, store: Store, scheduler: Scheduler, limits: Limits) -> None:
        self._model = model
        self._store = store
        self._scheduler = scheduler
        self._limits = limits

    async def create(self, request: Request) -> Video:
        """Start a video."""
        creation = await read_creation(request, self._limits.upload_bytes)
        image = creation.image
        job = accept(creation.request, self._model, self._limits, owner=_owner(request), image=image is not None)
        if image is not None:
            await asyncio.to_thread(storage.write_atomic, self._store.image(job.id), image)
        admission = await self._scheduler.submit(job)
        if not admission.accepted:
            await asyncio.to_thread(self._store.delete, job.id)
            message = f"The queue is full; try again in {admission.retry_after_s} s."
            headers = {"Retry-After": str(admission.retry_after_s)}
            raise ApiError(429, message, code="queue_full", headers=headers)
        return await self.retrieve(job.id)

    async def retrieve(self, video_id: str) -> Video:
        """How a video stands now."""
        video = await asyncio.to_thread(self._store.video, video_id) if ID_PATTERN.fullmatch(video_id) else None
        if video is None:
            raise not_found(video_id)
        return video

    async def list(self, after: str | None, limit: int, order: Literal["asc", "desc"]) -> VideoList:
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
        video = await self.retrieve(video_id)
        if video.status in ("queued", "in_progress"):
            await self._scheduler.cancel(video_id)
        await asyncio.to_thread(self._store.delete, video_id)
        return VideoDeleted(id=video_id)

    async def cancel(self, video_id: str) -> Video:
        """Stop a video; one that has ended stays as it is."""
        video = await self.retrieve(video_id)
        if video.status in ("queued", "in_progress"):
            await self._scheduler.cancel(video_id)
        return await self.retrieve(video_id)

    async def content(self, request: Request, video_id: str, variant: str, stream: bool) -> Response:
        """The video or its thumbnail; with `stream`, all that exists of a running one and then the rest as it comes."""
        video = await self.retrieve(video_id)
        if variant == "thumbnail":
            url = self._store.at(video_id, "thumbnail.webp")
            if await asyncio.to_thread(storage.exists, url):
                return await file_response(request, url, "image/webp", f"{video_id}.webp")
        elif stream:
            return live_response(request, self._store, video_id)
        elif video.status == "completed":
            url = self._store.at(video_id, "video.mp4")
            return await file_response(request, url, "video/mp4", f"{video_id}.mp4")
        if video.error:
            raise bad_request(f"There is no video: {video.error.message}", "video_id", "video_failed")
        message = f"The video is not ready: it is {video.status}, {video.progress} % done."
        raise bad_request(message, "video_id", "video_not_ready")

    async def ready(self) -> Health:
        """Whether a worker answers."""
        try:
            async with asyncio.timeout(READY_S):
                await self._scheduler.ready()
        except TimeoutError as error:
            raise ApiError(503, "No sampler answers yet.", code="not_ready", headers={"Retry-After": "5"}) from error
        return Health(status="ready")


def _add_routes(app: FastAPI, endpoint: Endpoint) -> None:
    @app.post("/v1/videos", responses=ERRORS, openapi_extra=_creation_body(), tags=["videos"])
    async def create_video(request: Request) -> Video:
        """Start a video. Every parameter but `prompt` has a default that suits the model."""
        return await endpoint.create(request)

    @app.get("/v1/videos", responses=ERRORS, tags=["videos"])
    async def list_videos(
        after: str | None = None,
        limit: Annotated[int, Query(ge=0, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoList:
        """One page of videos, newest first unless asked otherwise; the next page begins `after` the last id."""
        return await endpoint.list(after, limit, order)

    @app.get("/v1/videos/{video_id}", responses=ERRORS, tags=["videos"])
    async def retrieve_video(video_id: str) -> Video:
        """How a video stands now."""
        return await endpoint.retrieve(video_id)

    @app.delete("/v1/videos/{video_id}", responses=ERRORS, tags=["videos"])
    async def delete_video(video_id: str) -> VideoDeleted:
        """Forget a video; one that is being made is stopped first."""
        return await endpoint.delete(video_id)

    @app.post("/v1/videos/{video_id}/cancel", responses=ERRORS, tags=["videos"])
    async def cancel_video(video_id: str) -> Video:
        """Stop a video; it then counts as failed, with the error code `cancelled`. One that has ended stays."""
        return await endpoint.cancel(video_id)

    # A GET route answers HEAD with 405, so HEAD has its own.
    @app.head("/v1/videos/{video_id}/content", include_in_schema=False)
    @app.get("/v1/videos/{video_id}/content", response_class=Response, responses=CONTENT, tags=["videos"])
    async def video_content(
        request: Request, video_id: str, variant: Literal["video", "thumbnail"] = "video", stream: bool = False
    ) -> Response:
        """The finished MP4 or the thumbnail; `stream=1` plays a video from its start while it is still being made."""
        return await endpoint.content(request, video_id, variant, stream)

    @app.get("/health", tags=["server"])
    async def health() -> Health:
        """The gateway lives."""
        return Health(status="ok")

    @app.get("/ready", responses=ERRORS, tags=["server"])
    async def ready() -> Health:
        """A sampler answers."""
        return await endpoint.ready()


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return bad_request(f"{name}: {first['msg']}", name).response()

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return ApiError(error.status_code, f"{error.detail}.", headers=error.headers).response()

    @app.exception_handler(Exception)
    async def server_error(_: Request, error: Exception) -> Response:
        return ApiError(500, "The server made a mistake; its log says more.").response()


def _owner(request: Request) -> str:
    """Whose turn a job takes: a digest of the API key, the same for all who send none."""
    key = request.headers.get("authorization", "")
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _creation_body() -> dict[str, Any]:
    """Both ways to send the body, for the OpenAPI document; parsing.py reads them."""
    schema = CreateVideo.model_json_schema()
    properties = schema["properties"]
    form = {**schema, "properties": {**properties, IMAGE: {"type": "string", "format": "binary"}}}
    reference = {
        "type": "object",
        "properties": {"image_url": {"type": "string", "description": "data:image/…;base64,…"}},
        "required": ["image_url"],
        "additionalProperties": False,
    }
    body = {**schema, "properties": {**properties, IMAGE: reference}}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": body}}
    return {"requestBody": {"required": True, "content": content}}
