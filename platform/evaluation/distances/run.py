"""Two sets of videos on a Ray cluster: decoded, turned into features, compared. A stopped run goes on.

results.json   the distances, with what made them; written last
features/      the features of each batch of videos; see `kept`

Shape letters: N videos, T frames, H W pixels, M items, D features.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rayramid.models import storage
from rayramid.models.brief import parse_size
from rayramid.models.cpu import compute_on_cpu
from rayramid.models.errors import UserError
from rayramid.models.frechet import Gaussian, frechet_distance, kernel_distance
from rayramid.models.media.errors import DecodeError
from rayramid.pipelines import tables
from rayramid.pipelines.clips import read_clips
from rayramid.pipelines.frames import SourceFrames
from rayramid.pipelines.job import Row
from rayramid.pipelines.sources import list_sources
from rayramid.pipelines.spec import Thresholds
from rayramid.platform.evaluation.distances.extractors import fingerprints, load_extractors
from rayramid.platform.evaluation.distances.kept import keep, kept, key_of, read
from rayramid.platform.evaluation.distances.spec import DistancesSpec, VideoSet
from rayramid.platform.evaluation.pool import deal
from rayramid.platform.evaluation.record import record

RESULTS = "results.json"
DECODE_DEADLINE_S = 60.0

Side = Literal["made", "reference"]
SIDES: tuple[Side, Side] = ("made", "reference")


@dataclass(frozen=True)
class Piece:
    """Some videos of one side, and the key of their features."""

    side: Side
    rows: Sequence[Row]
    key: str


@dataclass(frozen=True)
class Measured:
    """What a piece gave: features [M, D] by network, and why some videos gave none, by their address."""

    side: Side
    videos: int
    features: dict[str, NDArray[np.float32]]
    unusable: dict[str, str]


def rows_of(videos: VideoSet) -> list[Row]:
    """The videos of a set as clips: uri, kind, start_ms, end_ms, and an `id` that changes with the video.

    Raises:
        UserError: there is none.
    """
    if videos.source is not None:
        listed = list_sources([videos.source], val_share=0).slice(0, videos.most)
        return [
            {
                "id": row["source_id"],
                "uri": row["uri"],
                "kind": row["kind"],
                "start_ms": row["from_ms"] or 0,
                "end_ms": row["to_ms"],
            }
            for row in tables.rows_of(listed)
        ]
    assert videos.dataset is not None
    clips = read_clips(videos.dataset, Thresholds()).kept.slice(0, videos.most)
    return [
        {"id": row["clip_id"], **{name: row[name] for name in ("uri", "kind", "start_ms", "end_ms")}}
        for row in tables.rows_of(clips)
    ]


def pieces(spec: DistancesSpec) -> list[Piece]:
    """All the work, in pieces of one batch.

    Raises:
        UserError: a set has no video.
    """
    networks, work = fingerprints(spec.features), []
    for side in SIDES:
        rows = rows_of(getattr(spec, side))
        for first in range(0, len(rows), spec.batch):
            some = rows[first : first + spec.batch]
            work.append(Piece(side, some, key_of(spec, networks, some)))
    return work


class Measurer:
    """Decodes videos and extracts their features, with networks that are loaded once."""

    def __init__(self, spec: DistancesSpec) -> None:
        compute_on_cpu(max(1, int(spec.workers.cpus)))
        self._spec = spec
        self._extractors = load_extractors(spec.features, "cuda" if torch.cuda.is_available() else "cpu")
        self._frames = SourceFrames(DECODE_DEADLINE_S)

    @torch.inference_mode()
    def measure(self, piece: Piece) -> Measured:
        """The features of a piece's videos, which are kept unless some are missing: another run tries these again."""
        videos, unusable = [], {}
        for row in piece.rows:
            try:
                videos.append(self._video(row))
            except DecodeError as error:
                unusable[row["uri"]] = str(error)
        features = {}
        if videos:
            videos_NTHWC = torch.from_numpy(np.stack(videos))
            features = {name: extract(videos_NTHWC).float().cpu().numpy() for name, extract in self._extractors.items()}
        if not unusable:
            keep(self._spec.output, piece.key, features)
        return Measured(piece.side, len(videos), features, unusable)

    def _video(self, row: Row) -> NDArray[np.uint8]:
        """The first frames [T, H, W, 3] of a clip."""
        wanted = self._spec.frames
        width, height = parse_size(self._spec.size)
        windows, seen = [], 0
        for window_THWC in self._frames.read(row, (height, width), fps=self._spec.fps):
            windows.append(window_THWC[: wanted - seen])
            seen += len(windows[-1])
            if seen == wanted:
                return np.concatenate(windows)
        raise DecodeError(row["uri"], f"{seen} of {wanted} frames")


def evaluate(
    spec: DistancesSpec, command: str, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """The distances, which are also written to the output; of `found` videos the features were there from before.

    Expects Ray to be initialised.

    Args:
        spec: what to compare.
        command: what was typed, for the record.
        on_progress: called with videos done and in all.

    Raises:
        UserError: a set is empty or gives fewer than two videos, a network is missing.
    """
    started = time.monotonic()
    storage.check_writable(spec.output)
    # A missing network is told here in one line, not by a worker.
    load_extractors(spec.features, "cpu")
    work, before = pieces(spec), kept(spec.output)
    left = [piece for piece in work if piece.key not in before]
    measured = [
        Measured(piece.side, len(piece.rows), read(spec.output, piece.key), {}) for piece in work if piece.key in before
    ]
    found = done = sum(each.videos for each in measured)
    total = sum(len(piece.rows) for piece in work)
    for new in deal(Measurer, spec, spec.workers, "measure", left) if left else ():
        measured.append(new)
        done += new.videos + len(new.unusable)
        if on_progress:
            on_progress(done, total)
    results = {**record(spec, command, started), "found": found, **sum_up(measured)}
    storage.write_atomic(storage.join(spec.output, RESULTS), json.dumps(results, indent=1).encode() + b"\n")
    return results


def sum_up(measured: Sequence[Measured]) -> dict[str, Any]:
    """`videos` of each side, `unusable` ones with their reasons, and `distances` by network.

    Raises:
        UserError: a side has fewer than two videos that can be used.
    """
    usable = {side: sum(each.videos for each in measured if each.side == side) for side in SIDES}
    unusable = {uri: reason for each in measured for uri, reason in each.unusable.items()}
    first = next(iter(unusable.items()), None)
    why = f"; {first[0]}: {first[1]}" if first else ""
    for side, count in usable.items():
        if count < 2:
            raise UserError(f"{side}: {count} videos can be used, a distance needs two at least{why}")
    parts: dict[str, dict[Side, list[NDArray[np.float32]]]] = defaultdict(lambda: {"made": [], "reference": []})
    for each in measured:
        for name, features_MD in each.features.items():
            parts[name][each.side].append(features_MD)
    return {
        "videos": usable,
        "unusable": unusable,
        "distances": {name: _compare(sides["made"], sides["reference"]) for name, sides in parts.items()},
    }


def _compare(made: Sequence[NDArray[np.float32]], reference: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    one, other = (reduce(add, map(Gaussian.of, parts)) for parts in (made, reference))
    return {
        "frechet": frechet_distance(one, other),
        "kernel": kernel_distance(np.concatenate(made), np.concatenate(reference)),
        "items": [one.count, other.count],
        "features": len(one.mean_D),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The numbers for people."""
    videos = found["videos"]
    said = [f"{videos['made']} videos against {videos['reference']} of the reference"]
    for name, distance in found["distances"].items():
        one, other = distance["items"]
        title = "FVD by i3d" if name == "i3d" else f"Fréchet distance by {name}"
        said.append(
            f"  {title:<28} {distance['frechet']:.4g}   kernel distance {distance['kernel']:.4g}"
            f"   ({one} and {other} items of {distance['features']} features)"
        )
        if min(one, other) <= distance["features"]:
            said.append("    fewer items than features: compare Fréchet distances of equally many items only")
    if found["unusable"]:
        said.append(f"{len(found['unusable'])} videos were too short or broken; results.json names them")
    return said
