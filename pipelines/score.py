"""Job 2: scores of a clip, all from one low-resolution decode. Nothing is rejected here; see selection.py.

Shape letters: T frames, H W pixels, 3 = RGB.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayramid.models.media.errors import DecodeError
from rayramid.models.media.preview import webp_animation
from rayramid.pipelines.frames import Frames, SourceFrames
from rayramid.pipelines.job import Row
from rayramid.pipelines.spec import Score

# A frame counts as black under this mean brightness (video black is 16 of 255).
BLACK_LUMA = 17.0
# Neighbours count as frozen when they differ by less, on average, than coding noise does.
FROZEN_DIFFERENCE = 0.5
PREVIEW_FRAMES = 12
PREVIEW_WIDTH = 160

SCORES = (
    "duration_s",
    "short_side",
    "aspect",
    "fps",
    "brightness",
    "contrast",
    "motion",
    "blur",
    "black",
    "frozen",
)

# Null for an image, so that no threshold on them rejects one.
OF_VIDEOS_ONLY = ("duration_s", "fps", "motion", "frozen")

COLUMNS = pa.schema(
    [("clip_id", pa.string()), *((name, pa.float64()) for name in SCORES), ("preview", pa.large_binary())]
)


class ScoreJob:
    """Rows are clips; a result row holds the clip's scores and a small animated preview."""

    columns_out = COLUMNS
    batch = 1
    facts: tuple[str, ...] = ()

    def __init__(self, score: Score, deadline_s: float) -> None:
        self._score = score
        self._frames = SourceFrames(deadline_s)
        cv2.setNumThreads(1)

    def rows_per_group(self, row: Row) -> int:
        """Rows are read together."""
        return 4096

    def __call__(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The scores of each clip."""
        return [[self._scores(row)] for row in rows]

    def _scores(self, row: Row) -> Row:
        scale = min(1.0, self._score.side / max(row["width"], row["height"]))
        size = max(16, round(row["height"] * scale)), max(16, round(row["width"] * scale))
        windows = list(self._frames.read(row, size, fps=self._score.fps))
        if not windows:
            raise DecodeError(row["uri"], "no frames")
        frames_THWC = np.concatenate(windows)
        return {
            "clip_id": row["clip_id"],
            "duration_s": (row["end_ms"] - row["start_ms"]) / 1000,
            "short_side": float(min(row["width"], row["height"])),
            "aspect": row["width"] / row["height"],
            "fps": row["fps"],
            **pixel_scores(frames_THWC, self._score.fps),
            **(dict.fromkeys(OF_VIDEOS_ONLY) if row["kind"] == "image" else {}),
            "preview": _preview(frames_THWC, self._score.fps),
        }


def pixel_scores(frames_THWC: Frames, fps: float) -> dict[str, float]:
    """The scores that need pixels, of frames [T, H, W, 3] taken `fps` times a second.

    brightness: mean luma, 0..255. contrast: its standard deviation within a frame. blur: variance of the Laplacian,
    low is blurred. black: share of black frames. frozen: share of neighbouring frames without a difference.
    motion: mean optical flow (Farneback) in frame diagonals per second.
    """
    luma_THW = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC])
    means_T = luma_THW.mean(axis=(1, 2))
    differences = np.abs(luma_THW[1:].astype(np.int16) - luma_THW[:-1]).mean(axis=(1, 2))
    return {
        "brightness": float(means_T.mean()),
        "contrast": float(luma_THW.std(axis=(1, 2)).mean()),
        "blur": float(np.mean([cv2.Laplacian(luma, cv2.CV_64F).var() for luma in luma_THW])),
        "black": float((means_T < BLACK_LUMA).mean()),
        "frozen": float((differences < FROZEN_DIFFERENCE).mean()) if len(differences) else 0.0,
        "motion": _motion(luma_THW, fps),
    }


def _motion(luma_THW: NDArray[np.uint8], fps: float) -> float:
    diagonal = float(np.hypot(*luma_THW.shape[1:]))
    speeds = []
    for previous, current in pairwise(luma_THW):
        flow_HW2 = cv2.calcOpticalFlowFarneback(previous, current, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
        speeds.append(np.hypot(flow_HW2[..., 0], flow_HW2[..., 1]).mean() * fps / diagonal)
    return float(np.mean(speeds)) if speeds else 0.0


def _preview(frames_THWC: Frames, fps: float) -> bytes:
    step = max(1, -(-len(frames_THWC) // PREVIEW_FRAMES))
    return webp_animation(frames_THWC[::step], fps=fps / step, width=PREVIEW_WIDTH)
