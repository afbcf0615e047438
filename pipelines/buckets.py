"""Which bucket a clip goes to: the size nearest to its aspect, the longest length that it fills."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

SPATIAL_RATIO = 8
TEMPORAL_RATIO = 8


@dataclass(frozen=True, order=True)
class Bucket:
    """Pixels and frames that go into the VAE; `name` is `HxWxT` with T in latents."""

    height: int
    width: int
    frames: int

    @property
    def latents(self) -> int:
        """1 + n latents for 1 + 8n frames."""
        return 1 + (self.frames - 1) // TEMPORAL_RATIO

    @property
    def grid(self) -> tuple[int, int, int]:
        """(T, H, W) of the latent."""
        return self.latents, self.height // SPATIAL_RATIO, self.width // SPATIAL_RATIO

    @property
    def name(self) -> str:
        """As in file names and manifests."""
        return f"{self.height}x{self.width}x{self.latents}"


class NoBucketError(ValueError):
    """The clip fits no bucket; the message says why."""


def parse_size(size: str) -> tuple[int, int]:
    """(width, height) of `WIDTHxHEIGHT`."""
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    assert found is not None, size
    return int(found[1]), int(found[2])


def choose(
    width: int,
    height: int,
    duration_ms: int | None,
    sizes: Sequence[str],
    lengths: Sequence[int],
    fps: float,
    max_upscale: float,
) -> Bucket:
    """The bucket of a clip of `width` x `height` pixels; `duration_ms` is None for an image.

    Among sizes that do not enlarge the clip more than `max_upscale` times, the one whose aspect is nearest (as a
    ratio), and of equal ones the largest.

    Raises:
        NoBucketError: too small for every size or too short for every length.
    """
    fitting = []
    for size_width, size_height in map(parse_size, sizes):
        # The crop keeps the aspect, so the larger of the two factors is the one that is applied.
        upscale = max(size_width / width, size_height / height)
        if upscale <= max_upscale:
            aspect_error = abs(math.log(size_width / size_height) - math.log(width / height))
            fitting.append((round(aspect_error, 9), -size_width * size_height, size_height, size_width))
    if not fitting:
        raise NoBucketError(f"{width}x{height} is too small for every size")
    _, _, size_height, size_width = min(fitting)
    # A clip's start is its first frame's time rounded down: the last millisecond may not be there.
    available = 1 if duration_ms is None else round((duration_ms - 1) * fps / 1000)
    frames = max((length for length in lengths if length <= available), default=None)
    if frames is None:
        raise NoBucketError(f"{available} frames at {fps:g} fps are fewer than {min(lengths)}")
    return Bucket(size_height, size_width, frames)
