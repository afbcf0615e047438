"""What a video file holds: its size as shown, and when each of its frames is shown.

The table of times comes from the packets, which costs no decoding, where one packet surely is one frame;
else from decoding the file once. Everything that is read later is checked against it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from rayramid.models.media.errors import DecodeError

# Demuxers of self-contained files. Playlists are absent: they make FFmpeg open other files and addresses.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,nut,mxf,ivf,h264,hevc,av1,obu,mjpeg,rm,dv,"
    "yuv4mpegpipe,image2,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)
ONE_PACKET_PER_FRAME = {"h264", "hevc", "av1", "vp9", "mjpeg", "prores", "dnxhd", "ffv1", "png", "rawvideo", "gif"}
THREADS = 2


@dataclass(frozen=True)
class Probe:
    """A video as it is shown, after its rotation; its duration in whole milliseconds.

    `missing_frames`: promised by the header, absent from the file.
    """

    width: int
    height: int
    fps: float
    frames: int
    duration_ms: int
    codec: str
    missing_frames: int = 0


@dataclass(frozen=True)
class Track:
    """The frames of a file, by index in the order shown.

    `times_us` [N] are microseconds from the first frame, strictly rising; `end_us` is when the last one ends.
    `pts` [N] are the container's own numbers, None if they make no sense (then frames are counted);
    `keys` are the indices where decoding can start; `rotation` is in degrees, counter-clockwise. `closed`: the packets
    show that no group of pictures needs another one.
    """

    path: Path
    probe: Probe
    rotation: int
    closed: bool
    end_us: int
    times_us: NDArray[np.int64] = field(repr=False)
    pts: NDArray[np.int64] | None = field(repr=False)
    keys: NDArray[np.int64] = field(repr=False)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream; FFmpeg's errors become DecodeErrors."""
    if not path.is_file():
        raise DecodeError(path, "no such file")
    try:
        with av.open(
            str(path.absolute()), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        ) as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                raise DecodeError(path, "not a video", "there is no video stream in it")
            stream.codec_context.thread_count = THREADS
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.error.InvalidDataError, av.error.ArgumentError, av.error.EOFError) as error:
        raise DecodeError(path, "corrupt" if "stream" in locals() else "not a video", error.strerror or "") from error
    except av.error.FFmpegError as error:
        raise DecodeError(path, "corrupt", error.strerror or str(error)) from error


def scan(path: Path) -> Track:
    """Reads the table of frames and the first frame."""
    with opened(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise DecodeError(path, "no frames")
        rotation = round(first.rotation / 90) * 90 % 360
        width, height = (first.width, first.height) if rotation % 180 == 0 else (first.height, first.width)
        codec = stream.codec_context.codec.canonical_name
        time_base, rate = stream.time_base, stream.average_rate or stream.guessed_rate
        kind = container.format.name.split(",")[0]
        promised = len(stream.index_entries) if kind == "mov" else 0
    found = _times_of_packets(path) if codec in ONE_PACKET_PER_FRAME and kind in ("mov", "matroska") else None
    pts, keys, last_ticks, unshown, closed = found or _times_of_frames(path)
    if len(keys) == 0:
        raise DecodeError(path, "no frames", "no key frame to start from")
    rate = Fraction(rate or 25)
    frames = len(pts)
    rising = bool(np.all(np.diff(pts) > 0))
    if rising:
        times_us = np.rint((pts - pts[0]) * float(time_base * 1_000_000)).astype(np.int64)
        last_us = round(last_ticks * time_base * 1_000_000)
    else:
        times_us = np.rint(np.arange(frames) * float(1_000_000 / rate)).astype(np.int64)
        last_us = 0
    end_us = int(times_us[-1]) + (last_us or (int(times_us[-1] / (frames - 1)) if frames > 1 else round(1e6 / rate)))
    fps = round((frames - 1) * 1e6 / int(times_us[-1]), 3) if frames > 1 else float(rate)
    missing = max(0, promised - frames - unshown) if found else 0
    probe = Probe(width, height, fps, frames, max(1, end_us // 1000), codec, missing)
    return Track(path, probe, rotation, closed, end_us, times_us, pts if rising else None, keys)


_Times = tuple[NDArray[np.int64], NDArray[np.int64], int, int, bool]
"""pts in the order shown, indices of key frames, duration of the last frame in ticks, packets never shown, closed."""


def _times_of_packets(path: Path) -> _Times | None:
    """None if a packet has no time of its own."""
    pts, keys, durations, unshown, first_key, last_key, closed = [], [], [], 0, None, None, True
    with opened(path) as (container, stream):
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_corrupt:  # the flush at the end, or a packet that was cut off
                continue
            if packet.pts is None:
                return None
            if packet.is_keyframe:
                first_key = packet.pts if first_key is None else first_key
                last_key = packet.pts
            elif last_key is not None and packet.pts < last_key:
                closed = False
            # An edit list hides the frames before its start; those before the first key frame can't be decoded.
            if packet.is_discard or first_key is None or packet.pts < first_key:
                unshown += 1
                continue
            pts.append(packet.pts)
            keys.append(packet.is_keyframe)
            durations.append(packet.duration or 0)
    if not pts or len(set(pts)) < len(pts):
        return None
    order = np.argsort(pts)
    key_indices = np.flatnonzero(np.array(keys)[order])
    # An edit list may start inside a hidden group of pictures; reading then starts at the file's start.
    if len(key_indices) == 0 or key_indices[0] != 0:
        key_indices = np.insert(key_indices, 0, 0)
    return np.array(pts, np.int64)[order], key_indices, durations[order[-1]], unshown, closed


def _times_of_frames(path: Path) -> _Times:
    """Decodes the whole file."""
    pts, keys, duration = [], [], 0
    with opened(path) as (container, stream):
        try:
            for frame in container.decode(stream):
                pts.append(-1 if frame.pts is None else frame.pts)
                if frame.key_frame:
                    keys.append(len(pts) - 1)
                duration = frame.duration or 0
        except av.error.FFmpegError:
            # A file cut off in the middle of a frame: the frames before it are good.
            if not pts:
                raise
    if not pts:
        raise DecodeError(path, "no frames")
    return np.array(pts, np.int64), np.array(keys or [0], np.int64), duration, 0, False
