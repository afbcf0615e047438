"""Job 2: scores of a clip, all from one low-resolution decode. Nothing is rejected here; see selection.py.

Shape letters: T frames, H W pixels, C = 3 (RGB).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pyarrow as pa

from rayramid.models.media.errors import DecodeError
from rayramid.models.media.preview import webp_animation
from rayramid.pipelines.frames import Frames, SourceFrames
from rayramid.pipelines.job import Row
from rayramid.pipelines.scoring.hashes import content_hash, perceptual_hash
from rayramid.pipelines.scoring.motion import Flow, farneback, luma_of
from rayramid.pipelines.scoring.pixels import SIDE, pixel_scores
from rayramid.pipelines.spec import Score

# So many frames, evenly over the clip, are shown to models.
MODEL_FRAMES = 4
PREVIEW_FRAMES = 12
PREVIEW_WIDTH = 160

PIXEL_SCORES = (
    *("brightness", "contrast", "motion", "zoom_pan", "blur"),
    *("black", "frozen", "letterbox", "corner_mark"),
)
# Null unless the spec names the model.
MODEL_SCORES = ("text_area", "nsfw", "aesthetics", "text_fit")
SCORES = ("duration_s", "short_side", "aspect", "fps", *PIXEL_SCORES, *MODEL_SCORES)

# Null for an image, so that no threshold on them rejects one.
OF_VIDEOS_ONLY = ("duration_s", "fps", "motion", "zoom_pan", "frozen", "corner_mark")

COLUMNS = pa.schema(
    [
        ("clip_id", pa.string()),
        *((name, pa.float64()) for name in SCORES),
        ("content_hash", pa.string()),
        ("perceptual_hash", pa.string()),
        # Of unit length, fp16; null without a CLIP model.
        ("embedding", pa.binary()),
        ("preview", pa.large_binary()),
    ]
)


class ScoreJob:
    """Rows are clips; a result row holds the clip's scores, its hashes and a small animated preview."""

    columns_out = COLUMNS
    batch = 8
    facts: tuple[str, ...] = ()

    def __init__(self, score: Score, deadline_s: float) -> None:
        self._score = score
        self._frames = SourceFrames(deadline_s)
        self._models = Models(score)
        self._flow = flow_of(score)
        cv2.setNumThreads(1)

    def rows_per_group(self, row: Row) -> int:
        """Rows are read together."""
        return 4096

    def __call__(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The scores of each clip; the next one is decoded, in a process of its own, while this one is looked at."""
        found = []
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._decode, rows[0])
            for number, row in enumerate(rows):
                frames_THWC = ahead.result()
                if number + 1 < len(rows):
                    ahead = pool.submit(self._decode, rows[number + 1])
                found.append([self._scores(row, frames_THWC)])
        return found

    def _decode(self, row: Row) -> Frames:
        scale = min(1.0, self._score.side / max(row["width"], row["height"]))
        size = max(16, round(row["height"] * scale)), max(16, round(row["width"] * scale))
        windows = list(self._frames.read(row, size, fps=self._score.fps))
        if not windows:
            raise DecodeError(row["uri"], "no frames")
        return np.concatenate(windows)

    def _scores(self, row: Row, frames_THWC: Frames) -> Row:
        return {
            "clip_id": row["clip_id"],
            "duration_s": (row["end_ms"] - row["start_ms"]) / 1000,
            "short_side": float(min(row["width"], row["height"])),
            "aspect": row["width"] / row["height"],
            "fps": row["fps"],
            **pixel_scores(frames_THWC, self._score.fps, self._flow),
            **(dict.fromkeys(OF_VIDEOS_ONLY) if row["kind"] == "image" else {}),
            **self._models.scores(frames_THWC, row.get("source_caption")),
            "content_hash": content_hash(frames_THWC),
            "perceptual_hash": perceptual_hash(luma_of(frames_THWC, SIDE)),
            "preview": _preview(frames_THWC, self._score.fps),
        }


def flow_of(score: Score) -> Flow:
    """Farneback, or RAFT where its weights are given."""
    if score.raft is None:
        return farneback
    from rayramid.pipelines.scoring.raft import Raft

    return Raft(score.raft)


class Models:
    """The models that a spec asks for; all see the same few frames of the one decode."""

    def __init__(self, score: Score) -> None:
        self._text_area = self._nsfw = self._clip = self._aesthetics = None
        if score.text:
            from rayramid.pipelines.scoring.text import TextArea

            self._text_area = TextArea()
        if score.nsfw:
            from rayramid.pipelines.scoring.nsfw import Nsfw

            self._nsfw = Nsfw()
        if score.clip is not None:
            from rayramid.pipelines.scoring.clip import Aesthetics, Clip

            self._clip = Clip(score.clip)
            self._aesthetics = Aesthetics(score.aesthetics) if score.aesthetics is not None else None

    def scores(self, frames_THWC: Frames, caption: str | None) -> Row:
        """MODEL_SCORES and the embedding of frames [T, H, W, 3]; `caption` is the source's own, if it has one.

        text_area: share of the picture that lines of text take. nsfw: highest probability over the frames.
        aesthetics: LAION's, about 1 to 10. text_fit: cosine of the clip's embedding and its caption's.
        """
        shown_THWC = frames_THWC[np.linspace(0, len(frames_THWC) - 1, MODEL_FRAMES).round().astype(int)]
        embedding = text_fit = None
        if self._clip is not None:
            embedding = self._clip.embed(shown_THWC)
            text_fit = float(self._clip.embed_texts([caption])[0] @ embedding) if caption else None
        return {
            "text_area": self._text_area(shown_THWC) if self._text_area else None,
            "nsfw": self._nsfw(shown_THWC) if self._nsfw else None,
            "aesthetics": self._aesthetics(embedding) if self._aesthetics and embedding is not None else None,
            "text_fit": text_fit,
            "embedding": None if embedding is None else embedding.astype("<f2").tobytes(),
        }


def _preview(frames_THWC: Frames, fps: float) -> bytes:
    step = max(1, -(-len(frames_THWC) // PREVIEW_FRAMES))
    return webp_animation(frames_THWC[::step], fps=fps / step, width=PREVIEW_WIDTH)
