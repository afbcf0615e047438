"""What a client sends and how it reads what comes back, without sending anything: both clients share it."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from rayramid.models.brief import Frames
from rayramid.models.errors import UserError
from rayramid.models.media.segments import SegmentReader
from rayramid.serve.errors import ErrorBody
from rayramid.serve.wire import (
    ChangePrompt,
    CreateVideo,
    ExtendVideo,
    PromptChanged,
    RemixVideo,
    Video,
    VideoDeleted,
    VideoEvent,
    VideoList,
    VideoReference,
)

PAGE = 50
A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class Call(Generic[A]):
    """A request, and what its answer is."""

    method: str
    path: str
    answer: type[A]
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int] = field(default_factory=dict)


def create(wanted: CreateVideo | str, image: Path | None, key: str | None) -> Call[Video]:
    """Start a video."""
    request = CreateVideo(prompt=wanted) if isinstance(wanted, str) else wanted
    body = request.model_dump(exclude_defaults=True)
    if image is not None:
        # The server looks at the bytes, not at the type.
        data = base64.b64encode(image.read_bytes()).decode()
        body["input_reference"] = {"image_url": f"data:application/octet-stream;base64,{data}"}
    return Call("POST", "/videos", Video, body, {"Idempotency-Key": key} if key else {})


def extend(video_id: str, seconds: float, prompt: str | None) -> Call[Video]:
    """Make a completed video longer."""
    request = ExtendVideo(video=VideoReference(id=video_id), seconds=seconds, prompt=prompt)
    return Call("POST", "/videos/extensions", Video, request.model_dump(exclude_defaults=True))


def remix(video_id: str, prompt: str) -> Call[Video]:
    """Start a completed video again with another prompt."""
    body = RemixVideo(prompt=prompt).model_dump(exclude_defaults=True)
    return Call("POST", f"/videos/{video_id}/remix", Video, body)


def change_prompt(video_id: str, prompt: str) -> Call[PromptChanged]:
    """Let a video show something else from its next unit on."""
    return Call("POST", f"/videos/{video_id}/prompt", PromptChanged, ChangePrompt(prompt=prompt).model_dump())


def retrieve(video_id: str) -> Call[Video]:
    """How a video stands."""
    return Call("GET", f"/videos/{video_id}", Video)


def page(after: str | None) -> Call[VideoList]:
    """Videos, newest first, behind the one with the id `after`."""
    return Call("GET", "/videos", VideoList, query={"limit": PAGE} | ({"after": after} if after else {}))


def cancel(video_id: str) -> Call[Video]:
    """Stop a video."""
    return Call("POST", f"/videos/{video_id}/cancel", Video)


def delete(video_id: str) -> Call[VideoDeleted]:
    """Forget a video."""
    return Call("DELETE", f"/videos/{video_id}", VideoDeleted)


def live(video_id: str, *, cancel_on_leave: bool) -> str:
    """Path of a video as it is made."""
    return f"/videos/{video_id}/content?stream=1&cancel_on_disconnect={cancel_on_leave}".lower()


class Unseen:
    """Gives each frame of a video once, over any number of connections that each begin at its beginning."""

    def __init__(self) -> None:
        self.seen = 0

    def connect(self) -> None:
        """A new connection is open."""
        self._reader, self._place = SegmentReader(), 0

    def feed(self, data: bytes) -> Iterator[Frames]:
        """The frames in the next bytes that were not given yet."""
        for frames_THWC in self._reader.feed(data):
            known = min(max(0, self.seen - self._place), len(frames_THWC))
            self._place += len(frames_THWC)
            self.seen = max(self.seen, self._place)
            if known < len(frames_THWC):
                yield frames_THWC[known:]


class EventLines:
    """Puts server-sent events together from their lines."""

    def __init__(self) -> None:
        self._name = ""

    def feed(self, line: str) -> VideoEvent | Video | None:
        """The event that a line completes, if it does."""
        if line.startswith("event: "):
            self._name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            kind = VideoEvent if self._name == "progress" else Video
            return kind.model_validate_json(line.removeprefix("data: "))
        return None


def refusal(response: httpx.Response, body: bytes) -> UserError | None:
    """The server's own words if it refuses."""
    if response.is_success:
        return None
    try:
        message = ErrorBody.model_validate_json(body).error.message
    except ValidationError:
        message = f"{response.reason_phrase}; is this a rayramid endpoint?"
    return UserError(f"{response.url}: {response.status_code}: {message}")


def unreachable(error: httpx.TransportError) -> UserError:
    """Nobody answers, or stops answering."""
    return UserError(f"{error.request.url}: the endpoint can't be reached: {error}")
