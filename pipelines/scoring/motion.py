"""How much moves, and whether the camera alone explains it: optical flow of neighbouring frames.

Shape letters: T frames, H W pixels, C = 3 (RGB), 2 = x and y.
"""

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from rayramid.pipelines.frames import Frames

Flow = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float32]]

# Flow is measured at this longer side: a fast camera moves few pixels there, and it takes a quarter of the time.
SIDE = 128
# Flow is not known where the picture is flat: near no slope of so much luma per pixel.
TEXTURE = 2.0
NEAR = 9
# With less texture than this share of the picture, an object before a plain ground looks like a camera.
TEXTURED = 0.25
# Pixels per pair of frames under which nothing moves that could be explained.
MOVING = 0.05


def luma_of(frames_THWC: Frames, side: int) -> NDArray[np.uint8]:
    """Luma [T, H, W] of RGB frames, at most `side` pixels long."""
    return np.stack([_shrunk(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), side) for frame in frames_THWC])


def farneback(previous_HW: NDArray[np.uint8], current_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Optical flow [H, W, 2] in pixels."""
    return cv2.calcOpticalFlowFarneback(previous_HW, current_HW, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]


def motion_scores(luma_THW: NDArray[np.uint8], fps: float, flow: Flow = farneback) -> dict[str, float | None]:
    """Of luma [T, H, W] taken `fps` times a second.

    motion: mean optical flow in frame diagonals per second. zoom_pan: the share of the flow that one zoom and one pan
    per pair of frames explain, 1 for a still picture that is panned over; null where nothing moves or where too little
    texture shows what does.
    """
    small_THW = np.stack([_shrunk(luma, SIDE) for luma in luma_THW])
    flows = [flow(previous, current) for previous, current in pairwise(small_THW)]
    if not flows:
        return {"motion": 0.0, "zoom_pan": None}
    diagonal = float(np.hypot(*small_THW.shape[1:]))
    speed = float(np.mean([np.hypot(moved[..., 0], moved[..., 1]).mean() for moved in flows]))
    explained = [_explained(moved, textured(luma)) for moved, luma in zip(flows, small_THW, strict=False)]
    known = [pair for pair in explained if pair is not None]
    left, whole = (sum(part) for part in zip(*known, strict=True)) if known else (0.0, 0.0)
    moves = speed > MOVING and len(known) > len(flows) / 2 and whole > 0
    return {"motion": speed * fps / diagonal, "zoom_pan": 1 - left / whole if moves else None}


def textured(luma_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where flow can be known: near a slope."""
    slopes = [cv2.Sobel(luma_HW, cv2.CV_32F, *order, ksize=3, scale=0.125) for order in ((1, 0), (0, 1))]
    return cv2.blur(np.hypot(*slopes), (NEAR, NEAR)) > TEXTURE


def _explained(flow_HW2: NDArray[np.float32], known_HW: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Sums of squares of the flow: what the best zoom and pan leave, and all of it; None with too little texture.

    The model is v(p) = pan + zoom * p; with positions about their mean, its least squares are two means and a ratio.
    """
    if known_HW.mean() < TEXTURED:
        return None
    position_N2 = np.argwhere(known_HW)[:, ::-1].astype(np.float64)
    position_N2 -= position_N2.mean(axis=0)
    flow_N2 = flow_HW2[known_HW].astype(np.float64)
    centred_N2 = flow_N2 - flow_N2.mean(axis=0)
    zoom = (position_N2 * centred_N2).sum() / (position_N2**2).sum()
    return float(((centred_N2 - zoom * position_N2) ** 2).sum()), float((flow_N2**2).sum())


def _shrunk(luma_HW: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = luma_HW.shape
    if max(height, width) <= side:
        return luma_HW
    scale = side / max(height, width)
    size = max(8, round(width * scale)), max(8, round(height * scale))
    return cv2.resize(luma_HW, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
