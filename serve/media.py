"""Sending a stored file over HTTP: whole, in part (`Range`), or as headers alone (`HEAD`)."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from rayramid.models import storage
from rayramid.serve.errors import ApiError

CHUNK = 256 * 1024


@dataclass(frozen=True)
class Span:
    """A range of bytes, `stop` exclusive."""

    start: int
    stop: int


def parse_range(header: str | None, size: int) -> Span | None:
    """The one range that a `Range` header asks for; None means the whole file, also when it asks for several.

    Raises:
        ApiError: 416 if the range lies outside the file.
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        span = Span(max(0, size - int(match[2])), size)
    else:
        start, stop = int(match[1]), int(match[2]) + 1 if match[2] else size
        if match[2] and stop <= start:
            return None
        span = Span(start, min(stop, size))
    if span.start >= span.stop:
        message = f"The range {header!r} lies outside the {size} bytes."
        raise ApiError(416, message, param="Range", headers={"Content-Range": f"bytes */{size}"})
    return span


async def file_response(request: Request, url: str, media_type: str, name: str) -> Response:
    """A finished file; it never changes, so its name is its version."""
    size = await asyncio.to_thread(storage.size, url)
    tag = f'"{name}"'
    headers = {"Accept-Ranges": "bytes", "ETag": tag, "Content-Disposition": f'inline; filename="{name}"'}
    wanted = request.headers.get("range")
    if request.headers.get("if-range", tag) != tag:
        wanted = None
    span = parse_range(wanted, size)
    if span:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    part = span or Span(0, size)
    headers["Content-Length"] = str(part.stop - part.start)
    status = 206 if span else 200
    if request.method == "HEAD":
        return Response(None, status, headers, media_type)
    return StreamingResponse(_bytes(url, part), status, headers, media_type)


async def _bytes(url: str, part: Span) -> AsyncIterator[bytes]:
    for start in range(part.start, part.stop, CHUNK):
        yield await asyncio.to_thread(storage.read_range, url, start, min(CHUNK, part.stop - start))
