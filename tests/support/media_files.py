"""Video files whose every frame tells its number and its orientation, made with PyAV for the media tests."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BITS = 8


def numbered(number: int, height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """A frame: eight bars in the middle show `number` (white is 1), top left red, top right green, bottom left blue."""
    frame = np.full((height, width, 3), 128, np.uint8)
    third, half = height // 3, width // 2
    frame[:third, :half] = (220, 30, 30)
    frame[:third, half:] = (30, 200, 30)
    frame[-third:, :half] = (30, 30, 220)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        frame[third:-third, left:right] = 235 if number >> bit & 1 else 20
    return frame


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number that a decoded frame shows."""
    height, width = frame.shape[:2]
    columns = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    row = frame[height // 2 - 2 : height // 2 + 2].mean((0, 2))
    return sum(1 << bit for bit, column in enumerate(columns) if row[column - 1 : column + 2].mean() > 128)


def corners(frame: NDArray[np.uint8]) -> list[str]:
    """Which colour dominates in the four corners: top left, top right, bottom left, bottom right."""
    height, width = frame.shape[:2]
    names = []
    for row, column in [(6, 6), (6, width - 6), (height - 6, 6), (height - 6, width - 6)]:
        colour = frame[row - 2 : row + 2, column - 2 : column + 2].mean((0, 1))
        names.append("grey" if np.ptp(colour) < 40 else ["red", "green", "blue"][int(colour.argmax())])
    return names


@contextmanager
def _scheduling_kept() -> Iterator[None]:
    """SVT-AV1 makes the thread of root real-time (SCHED_FIFO 99), and with it all that this one starts later."""
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def make_video(
    path: Path,
    times: Iterable[int] = range(30),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 96),
    fps: int = 25,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
) -> Path:
    """Writes frame number `i` at tick `times[i]`, a tick being 1 / fps."""
    with _scheduling_kept(), av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.options = options or {}
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
