"""Frames of a video file by time.

Times are milliseconds from the first frame shown. A frame belongs to a range if start ≤ its time < end.
Paths are local.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rayramid.models.media.decoders import Frame, decord_frames, decord_reader, pyav_frames
from rayramid.models.media.errors import DecodeError
from rayramid.models.media.resize import resize_crop_frame
from rayramid.models.media.track import Probe, scan

BATCH_BYTES = 128 * 1024**2


class Video:
    """A file opened once, for many reads. Raises DecodeError if it holds no video."""

    def __init__(self, path: str | Path) -> None:
        self.track = scan(Path(path))
        self._decord = decord_reader(self.track)

    @property
    def probe(self) -> Probe:
        """Size, rate and length."""
        return self.track.probe

    @property
    def times_ms(self) -> NDArray[np.float64]:
        """[N]: when each frame is shown."""
        return self.track.times_us / 1000

    def frames(
        self,
        start_ms: float = 0,
        end_ms: float | None = None,
        fps: float | None = None,
        window: int = 64,
        size: tuple[int, int] | None = None,
    ) -> Iterator[NDArray[np.uint8]]:
        """Windows [≤ window, H, W, 3] of the frames of a range; see `read_frames`."""
        indices = select(self.track.times_us, self.track.end_us, start_ms, end_ms, fps)
        if len(indices) == 0:
            raise DecodeError(self.track.path, "empty range", f"no frame from {start_ms} to {end_ms} ms")
        wanted, repeats = np.unique(indices, return_counts=True)
        shown: list[Frame] = []
        for frame, count in zip(self._decoded(wanted.tolist(), window), repeats.tolist(), strict=True):
            resized = frame if size is None else resize_crop_frame(frame, *size)
            for _ in range(count):
                shown.append(resized)
                if len(shown) == window:
                    yield np.stack(shown)
                    shown = []
        if shown:
            yield np.stack(shown)

    def _decoded(self, wanted: list[int], window: int) -> Iterator[Frame]:
        done = 0
        if self._decord is not None:
            batch = max(1, min(window, BATCH_BYTES // (self.probe.width * self.probe.height * 3)))
            for frame in decord_frames(self.track, self._decord, wanted, batch):
                yield frame
                done += 1
        if done < len(wanted):
            yield from pyav_frames(self.track, wanted[done:])


def probe(path: str | Path) -> Probe:
    """Size, rate and length of a file."""
    return scan(Path(path)).probe


def frame_times(path: str | Path) -> NDArray[np.float64]:
    """[N] milliseconds: when each frame is shown, the first at 0."""
    return scan(Path(path)).times_us / 1000


def read_frames(
    path: str | Path,
    start_ms: float = 0,
    end_ms: float | None = None,
    fps: float | None = None,
    window: int = 64,
    size: tuple[int, int] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """The frames of a range, in windows [≤ window, H, W, 3] of uint8 RGB.

    Args:
        path: a local file.
        start_ms: the range's start, inclusive.
        end_ms: the range's end, exclusive; None is the file's end.
        fps: None gives every frame; else frame `i` is the one nearest to `i / fps` after the range's first.
        window: most frames in memory at once.
        size: (height, width) to which every frame is scaled and cropped; None leaves it as it is.

    Raises:
        DecodeError: the file gives no frames, or not all that it promises in the range.
    """
    return Video(path).frames(start_ms, end_ms, fps, window, size)


def select(
    times_us: NDArray[np.int64], end_us: int, start_ms: float, end_ms: float | None, fps: float | None
) -> NDArray[np.int64]:
    """Indices of the frames that a range shows, at their own times or at `fps`."""
    stop_us = end_us if end_ms is None else min(end_us, end_ms * 1000)
    first, last = np.searchsorted(times_us, [start_ms * 1000, stop_us])
    inside = np.arange(first, last)
    if fps is None or len(inside) == 0:
        return inside
    # As many frames as the range has room for, to the nearest: a rounded end must not add one.
    count = max(1, round((stop_us - times_us[first]) * fps / 1e6))
    moments = times_us[first] + np.arange(count) * 1e6 / fps
    after = np.clip(np.searchsorted(times_us[first:last], moments), 1, max(1, len(inside) - 1))
    before = after - 1
    if len(inside) == 1:
        return np.repeat(inside, count)
    nearer_after = times_us[first + after] - moments < moments - times_us[first + before]
    return np.asarray(first + np.where(nearer_after, after, before))
