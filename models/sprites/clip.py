"""Clips of the sprites world under an address, `sprites://SEED/INDEX?size=128x128&frames=25&fps=24`: drawn when read.

Shape letters: T frames, H W pixels, 3 = RGB.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayramid.models.errors import UserError
from rayramid.models.media.read import select
from rayramid.models.media.resize import resize_crop
from rayramid.models.media.track import Probe
from rayramid.models.sprites.captions import write
from rayramid.models.sprites.draw import draw_scene
from rayramid.models.sprites.render import Frames, render
from rayramid.models.sprites.scene import Scene

SCHEME = "sprites://"
EDITION = 1
"""Counts up when an address comes to show something else."""

WINDOW = 64
_ADDRESS = re.compile(
    r"sprites://(?P<seed>\d+)/(?P<index>\d+)\?size=(?P<width>\d+)x(?P<height>\d+)&frames=(?P<frames>\d+)&fps=(?P<fps>[\d.]+)"
)


@dataclass(frozen=True)
class SpritesClip:
    """One clip of the world `seed`, or an image where `frames` is 1."""

    seed: int
    index: int
    width: int
    height: int
    frames: int
    fps: float

    @classmethod
    def at(cls, uri: str) -> "SpritesClip":
        """The clip of an address; UserError if it isn't one."""
        found = _ADDRESS.fullmatch(uri)
        if found is None:
            raise UserError(f"{uri}: not an address of the form {SCHEME}SEED/INDEX?size=128x128&frames=25&fps=24")
        numbers = {name: int(found[name]) for name in ("seed", "index", "width", "height", "frames")}
        return cls(**numbers, fps=float(found["fps"]))

    @property
    def uri(self) -> str:
        """The address."""
        size = f"{self.width}x{self.height}"
        return f"{SCHEME}{self.seed}/{self.index}?size={size}&frames={self.frames}&fps={self.fps:g}"

    @property
    def scene(self) -> Scene:
        """What it shows."""
        return draw_scene(self.seed, self.index, self.width, self.height, self.frames)

    @property
    def caption(self) -> str:
        """The caption, which is true."""
        return write(self.scene.demand)

    @property
    def probe(self) -> Probe:
        """Size, rate and length, as of a file."""
        duration_ms = max(1, round(self.frames * 1000 / self.fps))
        return Probe(self.width, self.height, self.fps, self.frames, duration_ms, "sprites")

    @property
    def times_ms(self) -> NDArray[np.float64]:
        """[T]: when each frame is shown."""
        return self._times_us / 1000

    def read(
        self,
        start_ms: float = 0,
        end_ms: float | None = None,
        fps: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> Iterator[Frames]:
        """Windows [≤ 64, H, W, 3] of the frames of a range, chosen and scaled as `media.read.read_frames` does."""
        times_us = self._times_us
        wanted = select(times_us, round(self.frames * 1e6 / self.fps), start_ms, end_ms, fps)
        scene = self.scene
        for begin in range(0, len(wanted), WINDOW):
            indices = wanted[begin : begin + WINDOW]
            first, last = int(indices[0]), int(indices[-1])
            frames_THW3 = render(scene, last - first + 1, first)[indices - first]
            yield resize_crop(frames_THW3, *(size or (self.height, self.width)))

    @property
    def _times_us(self) -> NDArray[np.int64]:
        return np.rint(np.arange(self.frames) * 1e6 / self.fps).astype(np.int64)
