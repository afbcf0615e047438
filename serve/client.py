"""A small client of the endpoint, for scripts and for `rayramid sample --url`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from pydantic import ValidationError

from rayramid.models.errors import UserError
from rayramid.serve.errors import ErrorBody
from rayramid.serve.wire import Video

POLL_S = 0.5
Parts = list[tuple[str, tuple[str | None, bytes]]]


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
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=f"{url.rstrip('/')}/v1", headers=headers, timeout=httpx.Timeout(60.0))

    def create(
        self,
        prompt: str,
        *,
        size: str | None = None,
        seconds: float | None = None,
        seed: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        video_guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        image: Path | None = None,
    ) -> Video:
        """Start a video; what is left out is the model's default."""
        fields = {
            "prompt": prompt,
            "size": size,
            "seconds": seconds,
            "seed": seed,
            "steps": steps,
            "guidance_scale": guidance_scale,
            "video_guidance_scale": video_guidance_scale,
            "negative_prompt": negative_prompt,
        }
        # `(None, value)` is a plain field: the body is a form with or without an image.
        parts: Parts = [(name, (None, str(value).encode())) for name, value in fields.items() if value is not None]
        if image is not None:
            parts.append(("input_reference", (image.name, image.read_bytes())))
        return Video.model_validate_json(self._send("POST", "/videos", files=parts).content)

    def retrieve(self, video_id: str) -> Video:
        """How a video stands now."""
        return Video.model_validate_json(self._send("GET", f"/videos/{video_id}").content)

    def wait(self, video: Video, on_progress: Callable[[Video], None] | None = None) -> Video:
        """Return when the video is completed.

        Raises:
            JobFailedError: it has failed.
        """
        while True:
            video = self.retrieve(video.id)
            if on_progress:
                on_progress(video)
            if video.error:
                raise JobFailedError(f"{video.id}: {video.error.message}")
            if video.status == "completed":
                return video
            time.sleep(POLL_S)

    def save(self, video_id: str, path: Path) -> None:
        """Write the MP4 of a completed video to a file."""
        with _reachable(), self._http.stream("GET", f"/videos/{video_id}/content") as response:
            _check(response)
            with path.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)

    def cancel(self, video_id: str) -> Video:
        """Stop a video that is being made."""
        return Video.model_validate_json(self._send("POST", f"/videos/{video_id}/cancel").content)

    def delete(self, video_id: str) -> None:
        """Forget a video and all its files."""
        self._send("DELETE", f"/videos/{video_id}")

    def _send(self, method: str, path: str, files: Parts | None = None) -> httpx.Response:
        with _reachable():
            response = self._http.request(method, path, files=files)
        _check(response)
        return response


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise UserError(f"{error.request.url}: the endpoint can't be reached: {error}") from error


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    body = response.read()
    try:
        message = ErrorBody.model_validate_json(body).error.message
    except ValidationError:
        message = f"{response.reason_phrase}; is this a rayramid endpoint?"
    raise UserError(f"{response.url}: {response.status_code}: {message}")
