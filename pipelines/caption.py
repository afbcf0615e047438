"""Job 3: a caption for every kept clip: written by a model that sees it, or its source's own, or from a template."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from rayramid.models.media.errors import DecodeError
from rayramid.pipelines.captioning.checks import FATAL, checked
from rayramid.pipelines.captioning.spec import Caption
from rayramid.pipelines.frames import Frames, SourceFrames
from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.job import Row

if TYPE_CHECKING:
    from rayramid.pipelines.scoring.clip import Clip

COLUMNS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("caption_id", pa.string()),
        ("caption", pa.string()),
        # A second one in few words, where the spec asks for it.
        ("short_id", pa.string()),
        ("short", pa.string()),
        # source, template, or the hash of model and prompt.
        ("origin", pa.string()),
        # What is wrong with it, as checks.py says, with commas; null where nobody looked.
        ("checks", pa.string()),
        # Cosine of the clip's and the written caption's CLIP embedding; null where no model is named.
        ("caption_fit", pa.float64()),
    ]
)


class Captioner(Protocol):
    """Looks at clips and writes."""

    def captions(self, clips: Sequence[Frames], prompt: str) -> list[str]:
        """What it answers to the prompt, for each clip [T, H, W, 3]."""


class CaptionJob:
    """Rows are clips, each with its `template`; a result row is a caption with its origin and its faults.

    Written captions are compared with their clips by the open_clip model in the folder `judge`, if given.
    """

    columns_out = COLUMNS
    facts: tuple[str, ...] = ()

    def __init__(self, caption: Caption, deadline_s: float, judge: str | None = None) -> None:
        self._spec = caption
        self._writer = captioner_of(caption)
        self._frames = SourceFrames(deadline_s) if self._writer else None
        self._clip = clip_of(judge) if judge is not None else None
        self.batch = caption.batch if self._writer else 256

    def rows_per_group(self, row: Row) -> int:
        """Rows are read together."""
        return 4096

    def __call__(self, rows: Sequence[Row]) -> list[list[Row]]:
        """One caption per clip; ValueError for a clip without a usable one."""
        if self._writer is None:
            return [[_given(row)] for row in rows]
        clips, short = [self._look(row) for row in rows], self._spec.short_prompt
        long_ones = self._writer.captions(clips, self._spec.prompt)
        short_ones = [None] * len(rows) if short is None else self._writer.captions(clips, short)
        return [[self._written(*each)] for each in zip(rows, clips, long_ones, short_ones, strict=True)]

    def _look(self, row: Row) -> Frames:
        """A few frames evenly over the clip, small."""
        assert self._frames is not None
        scale = min(1.0, self._spec.side / max(row["width"], row["height"]))
        size = max(16, round(row["height"] * scale)), max(16, round(row["width"] * scale))
        fps = self._spec.frames * 1000 / (row["end_ms"] - row["start_ms"])
        windows = list(self._frames.read(row, size, fps=min(fps, row["fps"])))
        if not windows:
            raise DecodeError(row["uri"], "no frames")
        return np.concatenate(windows)[: self._spec.frames]

    def _written(self, row: Row, frames_THWC: Frames, written: str, written_short: str | None) -> Row:
        caption, faults = _usable(written)
        found = _row(row, caption, f"model:{self._spec.identity}")
        if self._clip is not None:
            found["caption_fit"] = float(self._clip.embed_texts([caption])[0] @ self._clip.embed(frames_THWC))
        if written_short is not None:
            short, short_faults = _usable(written_short)
            found |= {"short_id": caption_id(short), "short": short}
            faults = sorted({*faults, *short_faults})
        return {**found, "checks": ",".join(faults)}


def _usable(written: str) -> tuple[str, Sequence[str]]:
    """The caption and what is a little wrong with it; ValueError if that is too much."""
    found = checked(written)
    fatal = [fault for fault in found.wrong if fault in FATAL]
    if fatal:
        raise ValueError(f"caption: {', '.join(fatal)}: {written[:200]}")
    return found.text, found.wrong


def clip_of(folder: str) -> "Clip":
    """The open_clip model in a folder."""
    from rayramid.pipelines.scoring.clip import Clip

    return Clip(folder)


def captioner_of(caption: Caption) -> Captioner | None:
    """What writes captions by this spec; None if nothing does."""
    if caption.endpoint is not None:
        from rayramid.pipelines.captioning.endpoint import EndpointCaptioner

        return EndpointCaptioner(caption.endpoint)
    if caption.model is not None:
        from rayramid.pipelines.captioning.model import ModelCaptioner

        return ModelCaptioner(caption.model)
    return None


def _given(row: Row) -> Row:
    if row["source_caption"]:
        return _row(row, row["source_caption"].strip(), "source")
    if row["template"] is not None:
        return _row(row, row["template"].format(**fields(row)), "template")
    raise ValueError("the source has no caption and the spec no caption.template")


def _row(row: Row, caption: str, origin: str) -> Row:
    return {"clip_id": row["clip_id"], "caption_id": caption_id(caption), "caption": caption, "origin": origin}


def fields(row: Row) -> dict[str, object]:
    """What a template may name: the file's name as words, the clip's size and length."""
    stem = row["name"].rpartition("/")[2].rpartition(".")[0]
    return {
        "name": " ".join(stem.replace("_", " ").replace("-", " ").split()),
        "width": row["width"],
        "height": row["height"],
        "duration_s": f"{(row['end_ms'] - row['start_ms']) / 1000:g}",
    }
