"""How close decoded frames are to what was encoded: PSNR and SSIM of uint8 frames, frame by frame.

Shapes: T frames, H height, W width.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Frames = NDArray[np.uint8]

# Equal frames would have an infinite PSNR, and so would every mean with one of them.
HIGHEST_PSNR = 100.0
# Of Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity".
WINDOW, DEVIATION, K1, K2 = 11, 1.5, 0.01, 0.03


def psnr(frames_THWC: Frames, target_THWC: Frames) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each frame in dB, [T]."""
    errors_T = np.mean((frames_THWC.astype(np.float64) - target_THWC) ** 2, axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return np.minimum(10 * np.log10(255**2 / errors_T), HIGHEST_PSNR)


def ssim(frames_THWC: Frames, target_THWC: Frames) -> NDArray[np.float64]:
    """Structural similarity of each frame, [T], in a Gaussian window of 11 pixels, mean over colours.

    Raises:
        ValueError: frames smaller than the window.
    """
    if min(frames_THWC.shape[1:3]) < WINDOW:
        raise ValueError(f"frames of {frames_THWC.shape[2]}x{frames_THWC.shape[1]}; SSIM needs {WINDOW} pixels")
    x, y = (torch.from_numpy(frames.astype(np.float64)).permute(0, 3, 1, 2) for frames in (frames_THWC, target_THWC))
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (structure * luminance).mean(dim=(1, 2, 3)).numpy()


def _blurred(x_TCHW: Tensor) -> Tensor:
    """Gaussian means at all places where the window fits."""
    offsets = torch.arange(WINDOW, dtype=x_TCHW.dtype) - WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * DEVIATION**2))
    kernel = kernel / kernel.sum()
    C = x_TCHW.shape[1]
    rows = F.conv2d(x_TCHW, kernel.view(1, 1, -1, 1).expand(C, 1, -1, 1), groups=C)
    return F.conv2d(rows, kernel.view(1, 1, 1, -1).expand(C, 1, 1, -1), groups=C)
