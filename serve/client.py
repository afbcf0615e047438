"""Clients of an endpoint, blocking and asyncio: for scripts, and for `rayramid sample --url`.

A stream that breaks off, because a gateway died, goes on where it broke off.
"""

import asyncio
import builtins
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import BaseModel

from rayramid.models.brief import Frames
from rayramid.models.errors import UserError
from rayramid.serve import calls
from rayramid.serve.calls import Call, EventLines, Unseen
from rayramid.serve.connection import Patience, authorization, base_of, check, reaching
from rayramid.serve.wire import CreateVideo, PromptChanged, Video, VideoEvent

TIMEOUT = httpx.Timeout(120.0)
# Streams are silent while nothing happens.
STREAM_TIMEOUT = httpx.Timeout(10.0, read=None)
# After a stream broke off, before it is taken up again.
RESUME_S = 0.5

A = TypeVar("A", bound=BaseModel)
Event = VideoEvent | Video


class JobFailedError(UserError):
    """The video could not be made, or was cancelled."""


class Client:
    """Talks to one endpoint.

    Args:
        url: where it is, without `/v1`.
        api_key: sent as a bearer token.

    Every method raises UserError with the server's own words if it refuses, or if it can't be reached.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._http = httpx.Client(base_url=base_of(url), headers=authorization(api_key), timeout=TIMEOUT)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def create(
        self, wanted: CreateVideo | str, *, image: Path | None = None, idempotency_key: str | None = None
    ) -> Video:
        """Start a video of a prompt, or of a `CreateVideo` that says more; `image` is its first frame."""
        return self._send(calls.create(wanted, image, idempotency_key))

    def extend(self, video_id: str, seconds: float, prompt: str | None = None) -> Video:
        """Start a video that begins with all of a completed one and adds some seconds."""
        return self._send(calls.extend(video_id, seconds, prompt))

    def remix(self, video_id: str, prompt: str) -> Video:
        """Start a completed video again with another prompt."""
        return self._send(calls.remix(video_id, prompt))

    def change_prompt(self, video_id: str, prompt: str) -> PromptChanged:
        """Let a video that is being made show something else from its next unit on."""
        return self._send(calls.change_prompt(video_id, prompt))

    def retrieve(self, video_id: str) -> Video:
        """How a video stands now."""
        return self._send(calls.retrieve(video_id))

    def list(self) -> Iterator[Video]:
        """All videos, newest first."""
        page = self._send(calls.page(None))
        yield from page.data
        while page.has_more and page.last_id:
            page = self._send(calls.page(page.last_id))
            yield from page.data

    def cancel(self, video_id: str) -> Video:
        """Stop a video that is being made."""
        return self._send(calls.cancel(video_id))

    def delete(self, video_id: str) -> None:
        """Forget a video and all its files."""
        self._send(calls.delete(video_id))

    def frames(self, video_id: str, *, cancel_on_leave: bool = False) -> Iterator[Frames]:
        """The frames [T, H, W, 3] of a video from its beginning on, each unit's as soon as it is made.

        Args:
            video_id: of a video that is being made, or was.
            cancel_on_leave: cancel the video if this iterator is closed before its end.

        Raises:
            JobFailedError: there are no more, since the video has failed.
        """
        unseen, patience = Unseen(), Patience()
        path = calls.live(video_id, cancel_on_leave=cancel_on_leave)
        while True:
            with patience.tried(), self._stream(path) as response:
                unseen.connect()
                for data in response.iter_raw():
                    for frames_THWC in unseen.feed(data):
                        patience.renew()
                        yield frames_THWC
                break
            time.sleep(RESUME_S)
        _completed(self.retrieve(video_id))

    def events(self, video_id: str) -> Iterator[Event]:
        """How far a video is, whenever that changes; in the end the video itself, if it was not deleted."""
        patience = Patience()
        while True:
            with patience.tried(), self._stream(f"/videos/{video_id}/events") as response:
                lines = EventLines()
                for line in response.iter_lines():
                    event = lines.feed(line)
                    if event is not None:
                        patience.renew()
                        yield event
                return
            time.sleep(RESUME_S)

    def wait(self, video: Video, on_progress: Callable[[Event], None] | None = None) -> Video:
        """Return when the video is completed.

        Raises:
            JobFailedError: it has failed.
        """
        for event in self.events(video.id):
            if on_progress:
                on_progress(event)
        return _completed(self.retrieve(video.id))

    def save(self, video_id: str, path: Path) -> None:
        """Write the MP4 of a completed video to a file."""
        with reaching(), self._stream(f"/videos/{video_id}/content") as response, path.open("wb") as file:
            file.writelines(response.iter_bytes())

    def _send(self, call: Call[A]) -> A:
        with reaching():
            response = self._http.request(
                call.method, call.path, json=call.body, headers=dict(call.headers), params=dict(call.query)
            )
        check(response, response.content)
        return call.answer.model_validate_json(response.content)

    @contextmanager
    def _stream(self, path: str) -> Iterator[httpx.Response]:
        with self._http.stream("GET", path, timeout=STREAM_TIMEOUT, follow_redirects=True) as response:
            check(response, b"" if response.is_success else response.read())
            yield response


class AsyncClient:
    """The same for asyncio."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._http = httpx.AsyncClient(base_url=base_of(url), headers=authorization(api_key), timeout=TIMEOUT)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def create(
        self, wanted: CreateVideo | str, *, image: Path | None = None, idempotency_key: str | None = None
    ) -> Video:
        """Start a video of a prompt, or of a `CreateVideo` that says more; `image` is its first frame."""
        return await self._send(calls.create(wanted, image, idempotency_key))

    async def extend(self, video_id: str, seconds: float, prompt: str | None = None) -> Video:
        """Start a video that begins with all of a completed one and adds some seconds."""
        return await self._send(calls.extend(video_id, seconds, prompt))

    async def remix(self, video_id: str, prompt: str) -> Video:
        """Start a completed video again with another prompt."""
        return await self._send(calls.remix(video_id, prompt))

    async def change_prompt(self, video_id: str, prompt: str) -> PromptChanged:
        """Let a video that is being made show something else from its next unit on."""
        return await self._send(calls.change_prompt(video_id, prompt))

    async def retrieve(self, video_id: str) -> Video:
        """How a video stands now."""
        return await self._send(calls.retrieve(video_id))

    async def list(self) -> AsyncIterator[Video]:
        """All videos, newest first."""
        page = await self._send(calls.page(None))
        for video in page.data:
            yield video
        while page.has_more and page.last_id:
            page = await self._send(calls.page(page.last_id))
            for video in page.data:
                yield video

    async def cancel(self, video_id: str) -> Video:
        """Stop a video that is being made."""
        return await self._send(calls.cancel(video_id))

    async def delete(self, video_id: str) -> None:
        """Forget a video and all its files."""
        await self._send(calls.delete(video_id))

    async def frames(self, video_id: str, *, cancel_on_leave: bool = False) -> AsyncIterator[Frames]:
        """The frames [T, H, W, 3] of a video, each unit's as soon as it is made; see `Client.frames`."""
        unseen, patience = Unseen(), Patience()
        path = calls.live(video_id, cancel_on_leave=cancel_on_leave)
        while True:
            with patience.tried():
                async with self._stream(path) as response:
                    unseen.connect()
                    async for data in response.aiter_raw():
                        for frames_THWC in await asyncio.to_thread(builtins.list, unseen.feed(data)):
                            patience.renew()
                            yield frames_THWC
                    break
            await asyncio.sleep(RESUME_S)
        _completed(await self.retrieve(video_id))

    async def events(self, video_id: str) -> AsyncIterator[Event]:
        """How far a video is, whenever that changes; in the end the video itself, if it was not deleted."""
        patience = Patience()
        while True:
            with patience.tried():
                async with self._stream(f"/videos/{video_id}/events") as response:
                    lines = EventLines()
                    async for line in response.aiter_lines():
                        event = lines.feed(line)
                        if event is not None:
                            patience.renew()
                            yield event
                    return
            await asyncio.sleep(RESUME_S)

    async def wait(self, video: Video, on_progress: Callable[[Event], None] | None = None) -> Video:
        """Return when the video is completed; JobFailedError if it has failed."""
        async for event in self.events(video.id):
            if on_progress:
                on_progress(event)
        return _completed(await self.retrieve(video.id))

    async def save(self, video_id: str, path: Path) -> None:
        """Write the MP4 of a completed video to a file."""
        with reaching(), path.open("wb") as file:
            async with self._stream(f"/videos/{video_id}/content") as response:
                async for data in response.aiter_bytes():
                    file.write(data)

    async def _send(self, call: Call[A]) -> A:
        with reaching():
            response = await self._http.request(
                call.method, call.path, json=call.body, headers=dict(call.headers), params=dict(call.query)
            )
        check(response, response.content)
        return call.answer.model_validate_json(response.content)

    @asynccontextmanager
    async def _stream(self, path: str) -> AsyncIterator[httpx.Response]:
        async with self._http.stream("GET", path, timeout=STREAM_TIMEOUT, follow_redirects=True) as response:
            check(response, b"" if response.is_success else await response.aread())
            yield response


def _completed(video: Video) -> Video:
    if video.error:
        raise JobFailedError(f"{video.id}: {video.error.message}")
    return video
