"""Scores of the picture itself: light, sharpness, black bars, marks in the corners.

Shape letters: T frames, H W pixels, C = 3 (RGB).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from rayramid.pipelines.frames import Frames
from rayramid.pipelines.scoring.motion import Flow, farneback, luma_of, motion_scores

# The longer side that all of these are measured at, so that they do not depend on what was decoded.
SIDE = 256

# A frame counts as black under this mean brightness (video black is 16 of 255).
BLACK_LUMA = 17.0
# Neighbours count as frozen when they differ by less, on average, than coding noise does.
FROZEN_DIFFERENCE = 0.5
# No pixel of a black bar is brighter, apart from one in a hundred, which ringing beside the picture may be.
BAR_LUMA = 32.0

# A corner is this share of the width and of the height.
CORNER = 0.28, 0.22
# An edge that stays: at least so steep (luma per pixel) in the median over time, and at most this part of it unsteady.
HELD_EDGE = 10.0
UNSTEADY = 0.3
# As many frames tell what stays.
HELD_FRAMES = 6
# Below this share of a corner changing, everything in it stays and a mark cannot be told from the scene.
CHANGING = 0.3
CHANGE = 4.0


def pixel_scores(frames_THWC: Frames, fps: float, flow: Flow = farneback) -> dict[str, float | None]:
    """The scores that need no model, of frames [T, H, W, 3] taken `fps` times a second.

    brightness: mean luma, 0..255. contrast: its standard deviation within a frame. blur: variance of the Laplacian,
    low is blurred. black: share of black frames. frozen: share of neighbouring frames without a difference.
    letterbox: share of the picture that black bars take. corner_mark: share of the worst corner that edges take which
    stay while all else changes (logos, watermarks), beyond that of the picture's middle; null where no corner changes.
    motion, zoom_pan: see motion.py.
    """
    luma_THW = luma_of(frames_THWC, SIDE)
    means_T = luma_THW.mean(axis=(1, 2))
    differences = np.abs(luma_THW[1:].astype(np.int16) - luma_THW[:-1]).mean(axis=(1, 2))
    return {
        "brightness": float(means_T.mean()),
        "contrast": float(luma_THW.std(axis=(1, 2)).mean()),
        "blur": float(np.mean([cv2.Laplacian(luma, cv2.CV_32F).var() for luma in luma_THW])),
        "black": float((means_T < BLACK_LUMA).mean()),
        "frozen": float((differences < FROZEN_DIFFERENCE).mean()) if len(differences) else 0.0,
        "letterbox": letterbox(luma_THW),
        "corner_mark": corner_mark(luma_THW),
        **motion_scores(luma_THW, fps, flow),
    }


def letterbox(luma_THW: NDArray[np.uint8]) -> float:
    """The share of the picture that rows and columns at its edges take which are black in every frame."""
    brightest_HW = luma_THW.max(axis=0)
    height, width = _inside(brightest_HW), _inside(brightest_HW.T)
    return 1 - height * width


def corner_mark(luma_THW: NDArray[np.uint8]) -> float | None:
    """The share of the worst corner that edges take which stay while the corner changes, beyond the middle's."""
    if len(luma_THW) < 3:
        return None
    changes_HW = luma_THW.astype(np.float32).std(axis=0) > CHANGE
    held_HW = _held_edges(luma_THW[:: -(-len(luma_THW) // HELD_FRAMES)])
    height, width = held_HW.shape
    tall, wide = round(height * CORNER[1]), round(width * CORNER[0])
    corners = [(y, x) for y in (slice(tall), slice(-tall, None)) for x in (slice(wide), slice(-wide, None))]
    shares = [held_HW[corner].mean() for corner in corners if changes_HW[corner].mean() >= CHANGING]
    return max(0.0, float(max(shares) - held_HW[tall:-tall, wide:-wide].mean())) if shares else None


def _held_edges(luma_THW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    slopes_2THW = np.stack(
        [[cv2.Sobel(luma, cv2.CV_32F, *order, ksize=3, scale=0.125) for luma in luma_THW] for order in ((1, 0), (0, 1))]
    )
    medians_2HW = np.median(slopes_2THW, axis=1)
    edges_HW = np.hypot(*medians_2HW)
    strays_HW = np.median(np.hypot(*(slopes_2THW - medians_2HW[:, None])), axis=0)
    return (edges_HW > HELD_EDGE) & (strays_HW < UNSTEADY * edges_HW)


def _inside(brightest_HW: NDArray[np.uint8]) -> float:
    """The share of rows between the black ones at top and bottom; 0 if all are black."""
    lit = np.flatnonzero(np.quantile(brightest_HW, 0.99, axis=1) > BAR_LUMA)
    return float((lit[-1] - lit[0] + 1) / len(brightest_HW)) if len(lit) else 0.0
