"""Captions by an OpenAI-compatible endpoint (vLLM and others): frames as JPEGs in a chat completion.

Shape letters: T frames, H W pixels, C = 3 (RGB).
"""

import asyncio
import base64
import io
import os
from collections.abc import Sequence

import httpx
from PIL import Image

from rayramid.models.errors import UserError
from rayramid.pipelines.captioning.spec import Endpoint
from rayramid.pipelines.frames import Frames

# Busy, overloaded or restarting: worth another try.
_PASSING = frozenset([408, 409, 425, 429, 500, 502, 503, 504])
_LONGEST_PAUSE_S = 60.0
_JPEG_QUALITY = 85


class EndpointCaptioner:
    """Asks for several captions at once, each again with growing pauses while the endpoint is busy."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._headers = {}
        if endpoint.key_variable is not None:
            key = os.environ.get(endpoint.key_variable)
            if not key:
                raise UserError(f"caption.endpoint: the environment variable {endpoint.key_variable} is not set")
            self._headers["Authorization"] = f"Bearer {key}"

    def captions(self, clips: Sequence[Frames], prompt: str) -> list[str]:
        """One answer per clip [T, H, W, 3]; RuntimeError if the endpoint refuses or stays away."""
        return asyncio.run(self._all(clips, prompt))

    async def _all(self, clips: Sequence[Frames], prompt: str) -> list[str]:
        limit = asyncio.Semaphore(self._endpoint.concurrency)
        async with httpx.AsyncClient(headers=self._headers, timeout=self._endpoint.timeout_s) as client:

            async def one(frames_THWC: Frames) -> str:
                async with limit:
                    return await self._ask(client, frames_THWC, prompt)

            return list(await asyncio.gather(*map(one, clips)))

    async def _ask(self, client: httpx.AsyncClient, frames_THWC: Frames, prompt: str) -> str:
        pictures = [{"type": "image_url", "image_url": {"url": _data_url(frame)}} for frame in frames_THWC]
        request = {
            "model": self._endpoint.model,
            "max_tokens": self._endpoint.tokens,
            "temperature": 0,
            "messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": prompt}]}],
        }
        url = f"{self._endpoint.url.rstrip('/')}/chat/completions"
        trouble = ""
        for attempt in range(self._endpoint.retries + 1):
            try:
                response = await client.post(url, json=request)
            except httpx.TransportError as error:
                trouble, wanted = f"{type(error).__name__}: {error}", None
            else:
                if response.is_success:
                    return str(response.json()["choices"][0]["message"]["content"] or "")
                trouble, wanted = f"{response.status_code}: {response.text[:200]}", response.headers.get("retry-after")
                if response.status_code not in _PASSING:
                    break
            if attempt < self._endpoint.retries:
                await asyncio.sleep(self._pause(attempt, wanted))
        raise RuntimeError(f"{url}: {trouble}")

    def _pause(self, attempt: int, wanted: str | None) -> float:
        """Twice as long each time, or as long as the endpoint says."""
        asked = float(wanted) if wanted is not None and wanted.isdigit() else 0.0
        return min(max(asked, self._endpoint.pause_s * 2**attempt), _LONGEST_PAUSE_S)


def _data_url(frame_HWC: Frames) -> str:
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
