"""How frames follow each other, without any weights: flicker, motion energy, jumps at the borders of units.

Frames are RGB, [T, H, W, 3]; differences are of neighbouring frames.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rayramid.models.brief import Frames

# A difference below this, of 255, is that of a still picture.
STILL = 0.5


def steadiness(frames_THWC: Frames) -> float:
    """(255 - mean absolute difference) / 255: VBench's temporal_flickering, 1 for a still picture."""
    differences = _differences(frames_THWC)
    return float(1 - differences.mean() / 255) if len(differences) else 1.0


def motion_energy(frames_THWC: Frames) -> float:
    """Mean squared difference of values in 0..1; 0 for a still picture."""
    if len(frames_THWC) < 2:
        return 0.0
    return float(np.mean([(_change(a, b) ** 2).mean() for a, b in pairwise(frames_THWC)]) / 255**2)


def still_share(frames_THWC: Frames) -> float:
    """Share of the pairs of neighbouring frames that don't differ."""
    differences = _differences(frames_THWC)
    return float((differences < STILL).mean()) if len(differences) else 0.0


def boundary_jump(units: Sequence[Frames]) -> float | None:
    """Mean absolute difference across the borders of units by that inside of them.

    1 where units join unseen. None where there is no border, or nothing moves inside of the units.
    """
    differences = _differences(np.concatenate(units))
    lengths = [len(frames_THWC) for frames_THWC in units]
    border = np.zeros(len(differences), dtype=bool)
    border[np.cumsum(lengths)[:-1] - 1] = True
    inside = differences[~border]
    if not border.any() or not inside.any():
        return None
    return float(differences[border].mean() / inside.mean())


def motion(units: Sequence[Frames]) -> dict[str, float | None]:
    """Every measure of this page, of a video given unit by unit."""
    frames_THWC = np.concatenate(units)
    return {
        "steadiness": steadiness(frames_THWC),
        "motion_energy": motion_energy(frames_THWC),
        "still_share": still_share(frames_THWC),
        "boundary_jump": boundary_jump(units),
    }


def _differences(frames_THWC: Frames) -> NDArray[np.float64]:
    """Mean absolute difference of each pair of neighbours [T - 1]."""
    return np.array([np.abs(_change(a, b)).mean() for a, b in pairwise(frames_THWC)])


def _change(before: Frames, after: Frames) -> NDArray[np.float32]:
    return after.astype(np.float32) - before
