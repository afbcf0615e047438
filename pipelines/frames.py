"""Pixels of a source: a local copy of its file, decoded in a killable child; images are videos of one frame.

Sprites have no file: they are drawn.

Shape letters: T frames, H W pixels, C = 3 (RGB).
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rayramid.models import storage
from rayramid.models.media.child import DecodeChild
from rayramid.models.media.errors import DecodeError
from rayramid.models.media.resize import resize_crop
from rayramid.models.media.track import Probe
from rayramid.models.sprites.clip import SCHEME, SpritesClip
from rayramid.pipelines.identity import digest
from rayramid.pipelines.scratch import Scratch
from rayramid.pipelines.tars import member_of

Frames = NDArray[np.uint8]

# A still has no duration of its own; this one only has to hold its single frame.
IMAGE_MS = 1000
_CACHE_BYTES = 2 * 1024**3


class SourceFrames:
    """Opens sources by URI. Remote files and those in tars are copied once, the newest 2 GiB of them are kept."""

    def __init__(self, deadline_s: float) -> None:
        self._child = DecodeChild(deadline_s=deadline_s)
        self._scratch = Scratch()
        self._copies: OrderedDict[str, Path] = OrderedDict()

    def probe(self, uri: str, kind: str) -> Probe:
        """Size, frame rate and length of a source; DecodeError if it is no video or image."""
        if kind == "image":
            frame = self._still(uri)
            return Probe(
                width=frame.shape[2],
                height=frame.shape[1],
                fps=1000 / IMAGE_MS,
                frames=1,
                duration_ms=IMAGE_MS,
                codec="image",
                missing_frames=0,
            )
        if uri.startswith(SCHEME):
            return SpritesClip.at(uri).probe
        return self._child.probe(str(self._path(uri)))

    def times(self, uri: str) -> NDArray[np.float64]:
        """Milliseconds at which each frame of a video is shown, from 0."""
        if uri.startswith(SCHEME):
            return SpritesClip.at(uri).times_ms
        return self._child.frame_times(str(self._path(uri)))

    def read(
        self, row: dict[str, Any], size: tuple[int, int], fps: float | None = None, end_ms: int | None = None
    ) -> Iterator[Frames]:
        """Windows [T, H, W, 3] of the row's range (to `end_ms` if given), scaled and cropped to `size` = (H, W).

        With `fps`, frames are the nearest to a regular grid in time; without, the file's own.
        """
        uri, start = row["uri"], row["start_ms"]
        end = row["end_ms"] if end_ms is None else end_ms
        if row["kind"] == "image":
            yield resize_crop(self._still(uri), *size)
        elif uri.startswith(SCHEME):
            yield from SpritesClip.at(uri).read(start, end, fps=fps, size=size)
        else:
            yield from self._child.read_frames(str(self._path(uri)), start, end, fps=fps, size=size)

    def _still(self, uri: str) -> Frames:
        if uri.startswith(SCHEME):
            return next(SpritesClip.at(uri).read())
        return _image(self._path(uri))

    def _path(self, uri: str) -> Path:
        member = member_of(uri)
        local = storage.local_path(uri) if member is None else None
        if local is not None:
            return local
        if uri in self._copies:
            self._copies.move_to_end(uri)
            return self._copies[uri]
        copy = self._scratch.path / f"{digest(uri)}{Path(uri).suffix}"
        if member is None:
            storage.download(uri, copy)
        else:
            copy.write_bytes(member.read())
        self._copies[uri] = copy
        while len(self._copies) > 1 and sum(path.stat().st_size for path in self._copies.values()) > _CACHE_BYTES:
            self._copies.popitem(last=False)[1].unlink()
        return copy


def _image(path: Path) -> Frames:
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except OSError as error:
        raise DecodeError(path, "not an image", str(error)) from None
    return np.asarray(upright)[None]
