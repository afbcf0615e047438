"""The HTTP API: OpenAI's `/v1/videos`, and what a model that makes videos piece by piece can do beyond it."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from rayramid.serve.access import Access, Caller
from rayramid.serve.browsers import OwnPagesOnly, SecurityHeaders, cors
from rayramid.serve.catalogue import unknown_model
from rayramid.serve.endpoint import Endpoint, Order, Variant
from rayramid.serve.errors import ApiError, bad_request
from rayramid.serve.new_videos import NewVideos
from rayramid.serve.offer import ModelList, OfferedModel
from rayramid.serve.openapi import CONTENT, ERRORS, EVENTS, add_keys, body_of, components
from rayramid.serve.page.routes import add_page
from rayramid.serve.scheduler import UnavailableError
from rayramid.serve.unread import CloseUnread
from rayramid.serve.wire import (
    ChangePrompt,
    CreateVideo,
    EditVideo,
    ExtendVideo,
    Health,
    PromptChanged,
    RemixVideo,
    Video,
    VideoDeleted,
    VideoList,
)

CancelOnLeave = Annotated[bool, Query(description="Cancel the video when this connection ends before it is completed")]
EDITS = "This server makes, remixes and extends videos; it can't edit one. Remix it with another prompt, or extend it."
CHARACTERS = "This server has no characters; describe them in the prompt."


async def _caller(request: Request) -> Caller:
    access: Access = request.app.state.access
    return await access.caller(request)


# Known before the request's body is read.
Asker = Annotated[Caller, Depends(_caller)]


def create_app(new: NewVideos, endpoint: Endpoint, access: Access, origins: tuple[str, ...] = ()) -> FastAPI:
    """The ASGI app; pages of `origins` may use it from browsers."""
    app = FastAPI(
        title="rayramid",
        version="1",
        description="Videos by pyramidal flow matching, watched while they are made",
        docs_url=None,
        redoc_url=None,
        # Clients that are generated from the document have methods of these names.
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.access = access
    _add_errors(app)
    app.include_router(_making(new, endpoint), tags=["videos"])
    app.include_router(_reading(endpoint), tags=["videos"])
    app.include_router(_models(new), tags=["models"])
    app.include_router(_server(endpoint), tags=["server"])
    _add_components(app, keyed=access.keyed)
    add_page(app)
    # The last one added is the first to see a request.
    if origins:
        app.add_middleware(cors, origins=origins)
    if not access.keyed:
        app.add_middleware(OwnPagesOnly, origins=origins)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(CloseUnread)
    return app


def _making(new: NewVideos, endpoint: Endpoint) -> APIRouter:
    """Routes that begin, change or end videos."""
    router = APIRouter(responses=ERRORS)

    @router.post("/v1/videos", openapi_extra=body_of(CreateVideo, idempotent=True))
    async def create_video(request: Request, caller: Asker) -> Video:
        """Start a video. Every parameter but `prompt` has a default that suits the model."""
        return await new.create(request, caller)

    @router.post("/v1/videos/extensions", openapi_extra=body_of(ExtendVideo, idempotent=True))
    async def extend_video(request: Request, caller: Asker) -> Video:
        """Make a completed video longer: a new video that begins with all of it. N seconds and M more equal N + M."""
        return await new.extend(request, caller)

    @router.post("/v1/videos/edits", openapi_extra=body_of(EditVideo))
    async def edit_video(_: Asker) -> Video:
        """Not possible with this model: the answer is an error that says what is."""
        raise bad_request(EDITS, code="not_supported")

    @router.post("/v1/videos/characters", include_in_schema=False)
    async def create_character(_: Asker) -> None:
        raise bad_request(CHARACTERS, code="not_supported")

    @router.post("/v1/videos/{video_id}/remix", openapi_extra=body_of(RemixVideo, idempotent=True))
    async def remix_video(request: Request, caller: Asker, video_id: str) -> Video:
        """Start a completed video again with another prompt, and the same noise and settings."""
        return await new.remix(request, caller, video_id)

    @router.post("/v1/videos/{video_id}/prompt", openapi_extra=body_of(ChangePrompt))
    async def change_prompt(request: Request, caller: Asker, video_id: str) -> PromptChanged:
        """Let a video show something else from its next unit on, until its schedule says otherwise."""
        return await endpoint.change_prompt(request, caller, video_id)

    @router.post("/v1/videos/{video_id}/cancel")
    async def cancel_video(caller: Asker, video_id: str) -> Video:
        """Stop a video; it then counts as failed, with the error code `cancelled`. One that has ended stays."""
        return await endpoint.cancel(caller, video_id)

    @router.delete("/v1/videos/{video_id}")
    async def delete_video(caller: Asker, video_id: str) -> VideoDeleted:
        """Forget a video; one that is being made is stopped first."""
        return await endpoint.delete(caller, video_id)

    return router


def _reading(endpoint: Endpoint) -> APIRouter:
    """Routes that look at videos."""
    router = APIRouter()

    @router.get("/v1/videos", responses=ERRORS)
    async def list_videos(
        caller: Asker,
        after: str | None = None,
        limit: Annotated[int, Query(ge=0, le=100)] = 20,
        order: Order = "desc",
    ) -> VideoList:
        """One page of videos, newest first unless asked otherwise; the next page begins `after` the last id."""
        return await endpoint.list(caller, after, limit, order)

    @router.get("/v1/videos/{video_id}", responses=ERRORS)
    async def retrieve_video(caller: Asker, video_id: str) -> Video:
        """How a video stands now."""
        return await endpoint.retrieve(caller, video_id)

    # A GET route answers HEAD with 405, so HEAD has its own.
    @router.head("/v1/videos/{video_id}/content", include_in_schema=False)
    @router.get("/v1/videos/{video_id}/content", response_class=Response, responses=CONTENT)
    async def video_content(
        request: Request,
        caller: Asker,
        video_id: str,
        variant: Variant = "video",
        stream: bool = False,
        cancel_on_disconnect: CancelOnLeave = False,
    ) -> Response:
        """The finished MP4, its thumbnail or a sheet of 25 frames; `stream=1` plays a video while it is being made."""
        return await endpoint.content(
            request, caller, video_id, variant, stream=stream, cancel_on_leave=cancel_on_disconnect
        )

    @router.get("/v1/videos/{video_id}/events", response_class=Response, responses=EVENTS)
    async def video_events(caller: Asker, video_id: str, cancel_on_disconnect: CancelOnLeave = False) -> Response:
        """Progress, place in the queue and estimated seconds as server-sent events, until the video has ended."""
        return await endpoint.events(caller, video_id, cancel_on_leave=cancel_on_disconnect)

    return router


def _models(new: NewVideos) -> APIRouter:
    router = APIRouter(responses=ERRORS)

    @router.get("/v1/models")
    async def list_models(_: Asker) -> ModelList:
        """What is served here, and what may be asked of it."""
        return ModelList(data=await new.offers())

    @router.get("/v1/models/{model}")
    async def retrieve_model(_: Asker, model: str) -> OfferedModel:
        """One of them."""
        offers = {each.id: each for each in await new.offers()}
        if model not in offers:
            raise unknown_model(model, list(offers))
        return offers[model]

    return router


def _server(endpoint: Endpoint) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> Health:
        """The gateway lives."""
        return Health(status="ok")

    @router.get("/ready", responses=ERRORS)
    async def ready() -> Health:
        """A sampler answers."""
        return await endpoint.ready()

    return router


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
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        methods = _methods(app, request.url.path) if error.status_code == 405 else set()
        if methods:
            # Starlette names the methods of one route, though several share the path.
            headers["Allow"] = ", ".join(sorted(methods))
        return ApiError(error.status_code, f"{error.detail}.", headers=headers).response()

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, error: UnavailableError) -> Response:
        message = "The server is restarting; try again in a moment."
        return ApiError(503, message, code="unavailable", headers={"Retry-After": "2"}).response()

    @app.exception_handler(Exception)
    async def server_error(_: Request, error: Exception) -> Response:
        return ApiError(500, "The server made a mistake; its log says more.").response()


def _methods(app: FastAPI, path: str) -> set[str]:
    """What the document says a path can do."""
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    templates = (each for each in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", each), path))
    template = path if path in paths else next(templates, None)
    return {method.upper() for method in paths[template]} if template else set()


def _add_components(app: FastAPI, *, keyed: bool) -> None:
    derive = app.openapi

    def document() -> dict[str, Any]:
        found = derive()
        found["components"]["schemas"] |= components()
        if keyed:
            add_keys(found)
        return found

    app.openapi = document  # type: ignore[method-assign]
