"""Reading a request's body, which comes as multipart form or JSON, into a wire class and the files beside it."""

import asyncio
import base64
import binascii
import difflib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from rayramid.serve.errors import ApiError, bad_request
from rayramid.serve.picture import PictureDecoder, PictureError
from rayramid.serve.remote import Remote, RemoteError
from rayramid.serve.spec import Limits
from rayramid.serve.wire import Body, CreateVideo, ExtendVideo

IMAGE = "input_reference"
VIDEO = "video"
# The parts of `a[b][]`: a, b and nothing.
PATH = re.compile(r"[^\[\]]+|(?<=\[)(?=\])")
MOST_NESTED = 4
MOST_FIELDS = 500
B = TypeVar("B", bound=Body)


@dataclass(frozen=True)
class Parsed(Generic[B]):
    """What a client asks for; `image` is a PNG."""

    request: B
    image: bytes | None = None


async def read(request: Request, limits: Limits, body: type[B]) -> Parsed[B]:
    """Parse and check a body that has no files.

    Args:
        request: its body is read.
        limits: how long it may be, and how long it may take.
        body: the class that says what may stand in it.

    Raises:
        ApiError: 400 naming the parameter, 408 for too slow a body, 413 for too long a one, 415 for another type.
    """
    sent = await _read(request, limits, ())
    return Parsed(_validated(sent, body))


async def read_creation(
    request: Request, limits: Limits, decoder: PictureDecoder, remote: Remote | None
) -> Parsed[CreateVideo]:
    """Parse and check a body of `POST /v1/videos`; its picture is a file, a data URL or, with `remote`, any URL.

    Raises as `read` does.
    """
    sent = await _read(request, limits, (IMAGE,))
    image = sent.files.get(IMAGE)
    reference = sent.fields.pop(IMAGE, None)
    asked = _validated(sent, CreateVideo, IMAGE)
    if reference is not None:
        image = await _image_of(reference, limits.upload_bytes, remote)
    if image is None:
        return Parsed(asked)
    try:
        return Parsed(asked, await decoder.decode(image))
    except PictureError as error:
        raise bad_request(f"{IMAGE} is not a picture that can be used: {error}.", IMAGE) from error


async def read_extension(request: Request, limits: Limits) -> Parsed[ExtendVideo]:
    """Parse and check a body of `POST /v1/videos/extensions`. Raises as `read` does."""
    sent = await _read(request, limits, (VIDEO,))
    # The openai client can send an id only with an empty file beside it.
    if sent.files.get(VIDEO):
        message = "A video that is uploaded can't be extended, only one that was made here: send its id as video[id]."
        raise bad_request(message, VIDEO, "not_supported")
    return Parsed(_validated(sent, ExtendVideo))


@dataclass(frozen=True)
class _Sent:
    """A body before it is checked; in a form every value is a string."""

    fields: dict[str, Any]
    files: dict[str, bytes]
    form: bool


async def _read(request: Request, limits: Limits, files: tuple[str, ...]) -> _Sent:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/json"):
        raise ApiError(415, "Send the body as multipart/form-data or application/json.")
    bounded = Request(request.scope, _bounded(request, limits.upload_bytes))
    try:
        async with asyncio.timeout(limits.upload_seconds):
            if kind == "application/json":
                return _Sent(_json(await bounded.body()), {}, form=False)
            return await _form(bounded, files, limits.upload_bytes)
    except TimeoutError as error:
        raise ApiError(408, f"The body took longer than the {limits.upload_seconds:g} s that are allowed.") from error


def _bounded(request: Request, limit: int) -> Callable[[], Any]:
    """The request's pieces as they come, until there are too many: what is too long is never held."""
    announced = request.headers.get("content-length", "0")
    received = int(announced) if announced.isdecimal() and int(announced) > limit else 0

    async def receive() -> Message:
        nonlocal received
        message: Message = {} if received > limit else await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise ApiError(413, f"The body has more than the {limit} bytes that are allowed.")
        return message

    return receive


async def _form(request: Request, allowed: tuple[str, ...], limit: int) -> _Sent:
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    try:
        async with request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=limit) as form:
            for name, value in form.multi_items():
                if isinstance(value, str):
                    path = PATH.findall(name)
                    if len(path) > MOST_NESTED:
                        raise bad_request(f"{name[:40]!r} is nested too deeply.")
                    _insert(fields, name, path, value)
                elif name in allowed:
                    files[name] = await value.read()
                else:
                    raise bad_request(f"{name!r} is no file parameter.", name)
    except HTTPException as error:
        raise bad_request(f"The form can't be read: {error.detail}") from error
    return _Sent(fields, files, form=True)


def _insert(fields: dict[str, Any], name: str, path: list[str], value: str) -> None:
    """Put `a[b]=v`, `a[]=v` or `a[][b]=v` where it belongs, which is how the openai client sends nested values."""
    key, *rest = path or [name]
    if not rest:
        if key in fields:
            raise bad_request(f"{name!r} is given twice.", name)
        fields[key] = value
        return
    items = fields.setdefault(key, {} if rest[0] else [])
    if not isinstance(items, dict if rest[0] else list):
        raise bad_request(f"{name!r} contradicts an earlier parameter.", name)
    if isinstance(items, dict):
        _insert(items, name, rest, value)
    elif len(rest) == 1:
        items.append(value)
    else:
        # Clients send object after object, or key after key for all of them: each value is the first object's without.
        objects = [each for each in items if isinstance(each, dict)]
        found = next((each for each in objects if rest[1] not in each), None)
        if found is None:
            found = {}
            items.append(found)
        _insert(found, name, rest[1:], value)


def _json(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"The body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise bad_request("The body must be a JSON object.")
    return fields


async def _image_of(reference: object, limit: int, remote: Remote | None) -> bytes:
    """The bytes of `{"image_url": "data:…;base64,…"}`, or of a URL."""
    url = reference.get("image_url") if isinstance(reference, dict) and len(reference) == 1 else None
    if remote is not None and isinstance(url, str) and not url.startswith("data:"):
        try:
            return await remote.get(url, limit)
        except RemoteError as error:
            raise bad_request(f"{IMAGE}: the URL can't be used: {error}.", IMAGE) from error
    if not isinstance(url, str) or not url.startswith("data:") or ";base64," not in url:
        message = f'{IMAGE} must be a file, or {{"image_url": "data:image/…;base64,…"}}; other URLs are not asked.'
        raise bad_request(message, IMAGE)
    try:
        return base64.b64decode(url.partition(";base64,")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"{IMAGE}: not base64: {error}", IMAGE) from error


def _validated(sent: _Sent, body: type[B], *others: str) -> B:
    try:
        return body.model_validate(sent.fields, strict=not sent.form)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = [str(part) for part in first["loc"]]
        name = path[0] if path else None
        message = f"{'.'.join(path)}: {first['msg']}"
        if first["type"] == "extra_forbidden" and len(path) == 1:
            near = difflib.get_close_matches(str(name), [*body.model_fields, *others], n=1)
            message = f"Unknown parameter {name!r}" + (f"; did you mean {near[0]!r}?" if near else ".")
        raise bad_request(message, name) from error
