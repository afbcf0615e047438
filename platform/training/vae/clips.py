"""The clips of a run: listed once when it begins, and kept beside it, so that it reads the same ones to its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines.clips import read_clips
from rayramid.pipelines.identity import digest
from rayramid.pipelines.job import Row
from rayramid.pipelines.parquet import open_parquet
from rayramid.platform.training.vae.spec import ClipSource, Phase, VAESpec

COLUMNS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("kind", pa.string()),
        ("start_ms", pa.int64()),
        ("end_ms", pa.int64()),
        ("fps", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("split", pa.string()),
    ]
)


@dataclass(frozen=True)
class Readable:
    """What a phase can read of one split.

    Attributes:
        videos: clips that are long and large enough.
        images: images that are large enough.
        too_short: clips left out for their length.
        too_small: clips and images left out for their size.
    """

    videos: Sequence[Row]
    images: Sequence[Row]
    too_short: int
    too_small: int

    @property
    def stills(self) -> Sequence[Row]:
        """What visits of images read: the images, or single frames of the videos where there are none."""
        return self.images or self.videos


def note_clips(spec: VAESpec) -> None:
    """Lists the clips of every source of `spec` beside the run, unless that is done.

    Raises:
        UserError: a root without clips, or without scores where thresholds ask for them.
    """
    for source in {source for phase in spec.phases for source in phase.data}:
        if not storage.exists(_note(spec, source)):
            sink = pa.BufferOutputStream()
            pq.write_table(_table(source), sink, compression="zstd")
            storage.create(_note(spec, source), bytes(sink.getvalue()))


def noted_clips(spec: VAESpec, phase: Phase) -> pa.Table:
    """The clips of a phase's sources as the run began with them, or, before it began, as they are now."""
    tables = []
    for source in phase.data:
        note = _note(spec, source)
        tables.append(open_parquet(note).read() if storage.exists(note) else _table(source))
    return pa.concat_tables(tables)


def readable(clips: pa.Table, phase: Phase, split: Literal["train", "val"], frames: int | None = None) -> Readable:
    """The clips of a split that fit `phase`, in the order of their ids.

    Args:
        clips: all that there are.
        phase: says how large and how long they must be.
        split: of the clips.
        frames: the least length of a video; that of the phase when None.
    """
    videos, images, too_short, too_small = [], [], 0, 0
    for row in sorted(clips.to_pylist(), key=lambda row: row["clip_id"]):
        if row["split"] != split:
            continue
        if enlargement(row, phase) > phase.max_upscale:
            too_small += 1
        elif row["kind"] == "image":
            images.append(row)
        elif length(row, phase) < (frames or phase.frames):
            too_short += 1
        else:
            videos.append(row)
    return Readable(videos, images, too_short, too_small)


def check(found: Readable, phase: Phase) -> None:
    """Refuses a phase that would find nothing of what it asks for.

    Raises:
        UserError: says what there is and what would help.
    """
    left_out = f"{found.too_short} clips are too short for {phase.frames} frames, {found.too_small} too small"
    if not found.videos and phase.image_share < 1:
        raise UserError(
            f"phase '{phase.name}' would read no videos: {left_out} for {phase.size} of those in its data; "
            "lower frames, size or raise max_upscale"
        )
    if not found.stills:
        raise UserError(f"phase '{phase.name}' would read no images: {left_out} for {phase.size} of those in its data")


def length(row: Row, phase: Phase) -> int:
    """Frames that a video clip has at the phase's rate."""
    return round((row["end_ms"] - row["start_ms"]) * rate(row, phase) / 1000)


def rate(row: Row, phase: Phase) -> float:
    """Frames per second at which a clip is read."""
    return row["fps"] if phase.fps is None else phase.fps


def enlargement(row: Row, phase: Phase) -> float:
    """The factor by which a clip is scaled before the crop."""
    cover = max(phase.width / row["width"], phase.height / row["height"])
    if phase.short_side is None:
        return cover
    return max(cover, phase.short_side / min(row["width"], row["height"]))


def scaled(row: Row, phase: Phase) -> tuple[int, int]:
    """(height, width) of a clip before the crop."""
    factor = enlargement(row, phase)
    return max(phase.height, round(row["height"] * factor)), max(phase.width, round(row["width"] * factor))


def _table(source: ClipSource) -> pa.Table:
    return read_clips(source.root, source.keep).kept.select(COLUMNS.names).cast(COLUMNS)


def _note(spec: VAESpec, source: ClipSource) -> str:
    return storage.join(spec.output, "clips", f"{digest(source.model_dump(mode='json'))}.parquet")
