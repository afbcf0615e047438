"""Reading the body of `POST /v1/videos`, which comes as multipart form or JSON, into the request and its image."""

import asyncio
import base64
import binascii
import difflib
import io
import json
import re
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from rayramid.serve.errors import ApiError, bad_request
from rayramid.serve.wire import CreateVideo

IMAGE = "input_reference"
IMAGE_PIXELS = 50_000_000


@dataclass(frozen=True)
class Creation:
    """What a client asks for; `image` is an encoded picture, checked to be one."""

    request: CreateVideo
    image: bytes | None


async def read_creation(request: Request, upload_bytes: int) -> Creation:
    """Parse and check the body.

    Raises:
        ApiError: 400 naming the parameter, 413 for too long a body, 415 for another content type.
    """
    bounded = Request(request.scope, _bounded(request, upload_bytes))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        fields, image = await _form(bounded)
    elif kind == "application/json":
        fields, image = _json(await bounded.body())
    else:
        raise ApiError(415, "Send the body as multipart/form-data or application/json.")
    if image is not None:
        await asyncio.to_thread(_check_image, image)
    return Creation(_validated(fields), image)


def _bounded(request: Request, limit: int) -> Any:
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise ApiError(413, f"The body has more than the {limit} bytes that are allowed.")
        return message

    return receive


async def _form(request: Request) -> tuple[dict[str, Any], bytes | None]:
    fields: dict[str, Any] = {}
    image: bytes | None = None
    try:
        async with request.form(max_files=1) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name != IMAGE:
                        raise bad_request(f"{name!r} is no file parameter; the first frame is {IMAGE!r}.", name)
                    image = await value.read()
                else:
                    _insert(fields, name, value)
    except HTTPException as error:
        raise bad_request(f"The form can't be read: {error.detail}") from error
    if IMAGE in fields:
        image = _image_of(fields.pop(IMAGE))
    return fields, image


def _insert(fields: dict[str, Any], name: str, value: str) -> None:
    """Put `a[b]=v` into the nested dict that it means, which is how the openai client sends nested values."""
    outer, *inner = re.findall(r"[^\[\]]+", name) or [name]
    for key in inner:
        fields = fields.setdefault(outer, {})
        if not isinstance(fields, dict):
            raise bad_request(f"{name!r} contradicts an earlier parameter.", name)
        outer = key
    if outer in fields:
        raise bad_request(f"{name!r} is given twice.", name)
    fields[outer] = value


def _json(body: bytes) -> tuple[dict[str, Any], bytes | None]:
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise bad_request(f"The body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise bad_request("The body must be a JSON object.")
    reference = fields.pop(IMAGE, None)
    return fields, None if reference is None else _image_of(reference)


def _image_of(reference: object) -> bytes:
    """The bytes of `{"image_url": "data:…;base64,…"}`."""
    url = reference.get("image_url") if isinstance(reference, dict) else None
    if not isinstance(url, str) or not url.startswith("data:") or ";base64," not in url:
        raise bad_request(f'{IMAGE} must be a file, or {{"image_url": "data:image/…;base64,…"}}.', IMAGE)
    try:
        return base64.b64decode(url.partition(";base64,")[2], validate=True)
    except binascii.Error as error:
        raise bad_request(f"{IMAGE}: not base64: {error}", IMAGE) from error


def _check_image(image: bytes) -> None:
    # The name and type that come with an upload say nothing ("upload", "application/octet-stream"); the bytes decide.
    try:
        with Image.open(io.BytesIO(image)) as picture:
            if picture.width * picture.height > IMAGE_PIXELS:
                raise bad_request(f"{IMAGE} has more than the {IMAGE_PIXELS} pixels that are allowed.", IMAGE)
            picture.load()
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise bad_request(f"{IMAGE} is not a readable picture: {error}", IMAGE) from error


def _validated(fields: dict[str, Any]) -> CreateVideo:
    try:
        return CreateVideo.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else None
        message = f"{name}: {first['msg']}"
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(name), [*CreateVideo.model_fields, IMAGE], n=1)
            message = f"Unknown parameter {name!r}" + (f"; did you mean {near[0]!r}?" if near else ".")
        raise bad_request(message, name) from error
