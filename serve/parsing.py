"""Reading a request's body, which comes as multipart form or JSON, into a wire class and the files beside it."""

import asyncio
import base64
import binascii
import difflib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from rayramid.serve.errors import ApiError, bad_request
from rayramid.serve.wire import Body, CreateVideo, ExtendVideo

IMAGE = "input_reference"
IMAGE_PIXELS = 50_000_000
VIDEO = "video"
# The parts of `a[b][]`: a, b and nothing.
PATH = re.compile(r"[^\[\]]+|(?<=\[)(?=\])")
B = TypeVar("B", bound=Body)


@dataclass(frozen=True)
class Parsed(Generic[B]):
    """What a client asks for; `image` is an encoded picture, checked to be one."""

    request: B
    image: bytes | None = None


async def read(request: Request, limit: int, body: type[B]) -> Parsed[B]:
    """Parse and check a body that has no files.

    Args:
        request: its body is read.
        limit: bytes that it may have.
        body: the class that says what may stand in it.

    Raises:
        ApiError: 400 naming the parameter, 413 for too long a body, 415 for another content type.
    """
    sent = await _read(request, limit, ())
    return Parsed(_validated(sent, body))


async def read_creation(request: Request, limit: int) -> Parsed[CreateVideo]:
    """Parse and check a body of `POST /v1/videos`; its picture is a file or a data URL. Raises as `read` does."""
    sent = await _read(request, limit, (IMAGE,))
    image = sent.files.get(IMAGE)
    reference = sent.fields.pop(IMAGE, None)
    if reference is not None:
        image = _image_of(reference)
    if image is not None:
        await asyncio.to_thread(_check_image, image)
    return Parsed(_validated(sent, CreateVideo, IMAGE), image)


async def read_extension(request: Request, limit: int) -> Parsed[ExtendVideo]:
    """Parse and check a body of `POST /v1/videos/extensions`. Raises as `read` does."""
    sent = await _read(request, limit, (VIDEO,))
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


async def _read(request: Request, limit: int, files: tuple[str, ...]) -> _Sent:
    bounded = Request(request.scope, _bounded(request, limit))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(bounded, files)
    if kind == "application/json":
        return _Sent(_json(await bounded.body()), {}, form=False)
    raise ApiError(415, "Send the body as multipart/form-data or application/json.")


def _bounded(request: Request, limit: int) -> Callable[[], Any]:
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise ApiError(413, f"The body has more than the {limit} bytes that are allowed.")
        return message

    return receive


async def _form(request: Request, allowed: tuple[str, ...]) -> _Sent:
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    try:
        async with request.form(max_files=1) as form:
            for name, value in form.multi_items():
                if isinstance(value, str):
                    _insert(fields, name, PATH.findall(name), value)
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


def _image_of(reference: object) -> bytes:
    """The bytes of `{"image_url": "data:…;base64,…"}`."""
    url = reference.get("image_url") if isinstance(reference, dict) and len(reference) == 1 else None
    if not isinstance(url, str) or not url.startswith("data:") or ";base64," not in url:
        raise bad_request(f'{IMAGE} must be a file, or {{"image_url": "data:image/…;base64,…"}}.', IMAGE)
    try:
        return base64.b64decode(url.partition(";base64,")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"{IMAGE}: not base64: {error}", IMAGE) from error


def _check_image(image: bytes) -> None:
    # The name and type that come with an upload say nothing ("upload", "application/octet-stream"); the bytes decide.
    try:
        with Image.open(io.BytesIO(image)) as picture:
            if picture.width * picture.height > IMAGE_PIXELS:
                raise bad_request(f"{IMAGE} has more than the {IMAGE_PIXELS} pixels that are allowed.", IMAGE)
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise bad_request(f"{IMAGE} is not a readable picture: {error}", IMAGE) from error


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
