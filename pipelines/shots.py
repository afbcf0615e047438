"""Job 1: a source becomes its single-shot clips. Clips are virtual: a range of milliseconds of the source."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayramid.models.media.errors import DecodeError
from rayramid.models.media.track import Probe
from rayramid.pipelines.cuts import CONTENT_SIDE, TRANSNET_SIZE, Transition, detector_of
from rayramid.pipelines.frames import SourceFrames
from rayramid.pipelines.identity import digest
from rayramid.pipelines.job import Row
from rayramid.pipelines.spec import Shots

COLUMNS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("source_id", pa.string()),
        ("uri", pa.string()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("start_ms", pa.int64()),
        ("end_ms", pa.int64()),
        ("fps", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
        ("licence", pa.string()),
        ("split", pa.string()),
    ]
)


class ShotsJob:
    """Rows are source files; a result row is a clip. A source without a shot of the wanted length becomes no clip."""

    columns_out = COLUMNS
    batch = 1
    facts: tuple[str, ...] = ()

    def __init__(self, shots: Shots, deadline_s: float) -> None:
        self._shots = shots
        self._frames = SourceFrames(deadline_s)
        self._detect = detector_of(shots.detector, shots.threshold)

    def rows_per_group(self, row: Row) -> int:
        """Rows are read together."""
        return 4096

    def __call__(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The clips of each source."""
        return [self._clips(row) for row in rows]

    def _clips(self, row: Row) -> list[Row]:
        probe = self._frames.probe(row["uri"], row["kind"])
        if row["kind"] == "image":
            ranges = [(0, probe.duration_ms)]
        else:
            ranges = self._ranges(row, probe)
        return [
            {
                "clip_id": digest("clip", row["source_id"], start_ms, end_ms),
                "source_id": row["source_id"],
                "uri": row["uri"],
                "name": row["name"],
                "kind": row["kind"],
                "start_ms": start_ms,
                "end_ms": end_ms,
                "fps": probe.fps,
                "width": probe.width,
                "height": probe.height,
                "codec": probe.codec,
                "licence": row["licence"],
                "split": row["split"],
            }
            for start_ms, end_ms in ranges
        ]

    def _ranges(self, row: Row, probe: Probe) -> list[tuple[int, int]]:
        times_ms = self._frames.times(row["uri"])
        if len(times_ms) == 0:
            raise DecodeError(row["uri"], "no frames")
        # No frame is held longer than usual at the end, and none longer than the file says.
        end_ms = min(math.ceil(times_ms[-1] + _frame_ms(times_ms, probe)), probe.duration_ms)
        if row.get("from_ms") is not None:
            last_ms = end_ms if row["to_ms"] is None else min(row["to_ms"], end_ms)
            return _chopped(times_ms, row["from_ms"], last_ms, self._shots)
        whole = {**row, "start_ms": 0, "end_ms": end_ms}
        transitions = self._detect(self._frames.read(whole, self._detection_size(probe)))
        return clip_ranges(times_ms, transitions, end_ms, self._shots)

    def _detection_size(self, probe: Probe) -> tuple[int, int]:
        if self._shots.detector == "transnetv2":
            return TRANSNET_SIZE
        scale = min(1.0, CONTENT_SIDE / max(probe.width, probe.height))
        return max(2, round(probe.height * scale)), max(2, round(probe.width * scale))


def clip_ranges(
    times_ms: NDArray[np.float64], transitions: Sequence[Transition], end_ms: int, shots: Shots
) -> list[tuple[int, int]]:
    """Ranges [start, end) in ms: shots between transitions, trimmed, chopped to `max_s`, none under `min_s`.

    A frame belongs to a clip if start <= its time < end, so a boundary is the floor of its first frame's time.
    """
    trim_ms = round(1000 * shots.trim_s)
    starts = [0, *(_moment(times_ms, begin, end_ms) + trim_ms for _, begin in transitions)]
    ends = [*(_moment(times_ms, end, end_ms) - trim_ms for end, _ in transitions), end_ms]
    pairs = zip(starts, ends, strict=True)
    return [found for first, last in pairs for found in _chopped(times_ms, first, last, shots)]


def _chopped(times_ms: NDArray[np.float64], first: int, last: int, shots: Shots) -> list[tuple[int, int]]:
    """A range [first, last) in ms as clips of at most `max_s` and at least `min_s`, the latter where it is long enough.

    A clip starts with a frame, wherever it was trimmed or chopped: so its length is that of its frames.
    """
    min_ms, max_ms = (round(1000 * value) for value in (shots.min_s, shots.max_s))
    ranges: list[tuple[int, int]] = []
    start = _moment(times_ms, int(np.searchsorted(times_ms, first)), last)
    while start < last:
        end = min(start + max_ms, last)
        if end - start >= min_ms:
            ranges.append((start, end))
        start = _moment(times_ms, int(np.searchsorted(times_ms, end)), last)
    return ranges


def _moment(times_ms: NDArray[np.float64], frame: int, end_ms: int) -> int:
    return math.floor(times_ms[frame] + 1e-6) if frame < len(times_ms) else end_ms


def _frame_ms(times_ms: NDArray[np.float64], probe: Probe) -> float:
    return float(np.median(np.diff(times_ms))) if len(times_ms) > 1 else 1000.0 / probe.fps
