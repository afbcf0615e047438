"""A video that is watched while it is made: fragmented MP4, one media segment per unit.

Every segment has its own H.264 encoder (an IDR frame first, no B frames, one thread), so its bytes depend on its
frames, its first frame's number and its sequence number alone: another process can continue or repeat it, bit for bit.
The parameter sets are the same in all; they stand in the init segment.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from rayramid.models.media.write import configure, exact_rate, to_yuv

BOX_HEADER_BYTES = 8


class SegmentWriter:
    """Makes the parts of one stream; their concatenation is an MP4 file. Keeps no state between calls."""

    def __init__(self, width: int, height: int, fps: float, crf: int = 20) -> None:
        self.width, self.height, self.fps, self.crf = width, height, fps, crf

    def init_segment(self) -> bytes:
        """What a player needs first: size, codec, parameter sets, time scale."""
        black = np.zeros((1, self.height, self.width, 3), np.uint8)
        return _head(self._encoded(black, 0, 1))

    def media_segment(self, frames_THWC: NDArray[np.uint8], first_frame: int, sequence: int) -> bytes:
        """A unit's frames, shown from frame number `first_frame` on; `sequence` counts segments from 1."""
        data = self._encoded(frames_THWC, first_frame, sequence)
        return data[len(_head(data)) :]

    @property
    def codecs(self) -> str:
        """What `MediaSource.addSourceBuffer` is to be told, as in `video/mp4; codecs="avc1.64000d"`."""
        init = self.init_segment()
        at = init.index(b"avcC") + 4
        # avcC: a version byte, then profile, constraints, level.
        return f'video/mp4; codecs="avc1.{init[at + 1 : at + 4].hex()}"'

    def _encoded(self, frames_THWC: NDArray[np.uint8], first_frame: int, sequence: int) -> bytes:
        file = io.BytesIO()
        options = {
            # The header first and without samples; one fragment, cut at the end; times from the packets, not from zero.
            "movflags": "empty_moov+default_base_moof+frag_custom+frag_discont+negative_cts_offsets",
            "use_editlist": "0",
            "fragment_index": str(sequence),
            "fflags": "+bitexact",
        }
        with av.open(file, "w", format="mp4", options=options) as container:
            stream: Any = container.add_stream("libx264", rate=exact_rate(self.fps))
            context = stream.codec_context
            configure(context, self.width, self.height, self.fps, self.crf)
            context.options |= {"preset": "veryfast", "tune": "zerolatency", "threads": "1", "bf": "0", "g": "1000000"}
            context.thread_count = 1
            for number, frame in enumerate(frames_THWC, start=first_frame):
                image = to_yuv(frame)
                image.pts, image.time_base = number, context.time_base
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))
        return _without_trailer(file.getvalue())


class SegmentReader:
    """Decodes such a stream while it arrives, in pieces of any size."""

    def __init__(self) -> None:
        self._init = b""
        self._waiting = b""

    def feed(self, data: bytes) -> Iterator[NDArray[np.uint8]]:
        """Take the next bytes; yields the frames [T, H, W, 3] of every segment that is complete with them."""
        self._waiting += data
        while (end := self._complete()) is not None:
            segment, self._waiting = self._waiting[:end], self._waiting[end:]
            head, body = (b"", segment) if self._init else (_head(segment), segment[len(_head(segment)) :])
            self._init = self._init or head
            yield _decoded(self._init + body)

    def _complete(self) -> int | None:
        """Where the first `mdat` box ends, if it is all there."""
        at = 0
        while at + BOX_HEADER_BYTES <= len(self._waiting):
            size = int.from_bytes(self._waiting[at : at + 4], "big")
            name = self._waiting[at + 4 : at + BOX_HEADER_BYTES]
            at += size
            if name == b"mdat":
                return at if at <= len(self._waiting) else None
        return None


def _decoded(mp4: bytes) -> NDArray[np.uint8]:
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def remux(fragmented: str | Path, mp4: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Copies a concatenation of segments to an ordinary MP4 (index first, seekable), without encoding again."""
    with (
        av.open(str(fragmented)) as source,
        av.open(str(mp4), "w", format="mp4", options={"movflags": "faststart"}) as target,
    ):
        target.metadata.update(metadata or {})
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def _boxes(data: bytes) -> list[tuple[bytes, int, int]]:
    """Name, start and end of the top-level boxes."""
    boxes, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        boxes.append((data[at + 4 : at + BOX_HEADER_BYTES], at, at + size))
        at += size
    return boxes


def _head(data: bytes) -> bytes:
    return data[: next(start for name, start, _ in _boxes(data) if name == b"moof")]


def _without_trailer(data: bytes) -> bytes:
    # mfra indexes one file; in the midst of a stream it is noise.
    return b"".join(data[start:end] for name, start, end in _boxes(data) if name != b"mfra")
