"""Frames into video files: H.264 in MP4, which every player and browser shows."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from rayramid.models.errors import UserError
from rayramid.models.stores.local import plain_errors, staging

BT709 = 1
LIMITED_RANGE = 1


def write_mp4(
    path: str | Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float,
    crf: int = 18,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes RGB frames [H, W, 3] (or one array [T, H, W, 3]) to an MP4 that plays before it is wholly loaded.

    4:2:0 video has even sides: an odd last row or column is cut away. `crf` is x264's quality, 0 lossless to 51.
    The file appears when it is complete.
    """
    target = Path(path)
    staged = staging(target)
    with plain_errors(str(path)):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _encode(staged, frames, fps, crf, metadata or {})
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)


def _encode(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, crf: int, metadata: Mapping[str, str]) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for frame in frames:
            if stream is None:
                height, width = frame.shape[:2]
                stream = container.add_stream("libx264", rate=exact_rate(fps))
                configure(stream.codec_context, width, height, fps, crf)
                container.metadata.update(metadata)
            container.mux(stream.encode(to_yuv(frame)))
        if stream is None:
            raise UserError("a video needs at least one frame")
        container.mux(stream.encode(None))


def configure(context: Any, width: int, height: int, fps: float, crf: int) -> None:
    """Sets an x264 encoder to BT.709 4:2:0 at this size and rate."""
    if width < 2 or height < 2:
        raise UserError(f"{width}x{height}: a video is at least 2x2")
    context.width, context.height = width // 2 * 2, height // 2 * 2
    context.pix_fmt = "yuv420p"
    context.framerate = exact_rate(fps)
    context.time_base = 1 / exact_rate(fps)
    # Untagged colours are guessed, by every player in its own way.
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    # x264's macroblock tree reads memory it never wrote (with AVX-512): the same frames would not always give the same
    # bytes.
    context.options = {"crf": str(crf), "preset": "medium", "mbtree": "0"}


def to_yuv(frame_HWC: NDArray[np.uint8]) -> Any:
    """An RGB frame as BT.709 4:2:0, cut to even sides."""
    height, width = (side // 2 * 2 for side in frame_HWC.shape[:2])
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC[:height, :width]), format="rgb24")
    return image.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)


def exact_rate(fps: float) -> Fraction:
    """24 → 24, 23.976 → 24000/1001: the rate that a rounded number means."""
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    return ntsc if abs(fps - ntsc) < 0.005 < abs(fps - round(fps)) else Fraction(fps).limit_denominator(1000)
