"""When two videos are the same.

Exactly as far as their latents are: forwards in other company round differently. A frame's value that then falls to the
other side of a half, one of 50,000 here, lets the H.264 encoder choose otherwise for a whole unit: it makes a mean
difference of 0.16 of 255 out of one value. That is little beside what it loses of the tiny models' noise anyway, 5.5.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def same_latents(one_CTHW: Tensor, other_CTHW: Tensor) -> bool:
    """Equal but for rounding: relative root mean square of the difference up to 1e-4."""
    if one_CTHW.shape != other_CTHW.shape:
        return False
    return bool((one_CTHW - other_CTHW).norm() <= 1e-4 * other_CTHW.norm())


def same_pictures(one_THWC: NDArray[np.uint8], other_THWC: NDArray[np.uint8]) -> bool:
    """Equal but for what the encoder makes of a few differently rounded values; no frame is another one."""
    if one_THWC.shape != other_THWC.shape:
        return False
    return bool(frame_differences(one_THWC, other_THWC).max() < 1.5)


def frame_differences(one_THWC: NDArray[np.uint8], other_THWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean absolute difference of each frame, of 255."""
    return np.abs(one_THWC.astype(int) - other_THWC).mean(axis=(1, 2, 3))
