"""How frames look, without any weights: sharpness, fine detail, colours. One number for some frames, by unit a curve.

An autoregressive model that drifts shows in these curves: from unit to unit it gets softer, noisier, paler or brighter.
Frames are RGB, [T, H, W, 3].
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rayramid.models.brief import Frames

# Cycles per pixel, of .5 that pixels can show.
FINE = 0.25


def appearance(frames_THWC: Frames) -> dict[str, float]:
    """Every measure of this page: sharpness, fine_detail, saturation, and mean and deviation of each colour."""
    measured = {measure.__name__: measure(frames_THWC) for measure in (sharpness, fine_detail, saturation)}
    for name, values in (("mean", frames_THWC.mean(axis=(0, 1, 2))), ("deviation", _deviation(frames_THWC))):
        measured |= {f"{colour}_{name}": float(v) for colour, v in zip(("red", "green", "blue"), values, strict=True)}
    return measured


def sharpness(frames_THWC: Frames) -> float:
    """Variance of the Laplacian of the luma, the mean over frames; what the data's score `blur` measures."""
    return float(np.mean([cv2.Laplacian(luma, cv2.CV_64F).var() for luma in _luma(frames_THWC)]))


def fine_detail(frames_THWC: Frames) -> float:
    """Share of the luma's power, its mean left out, that lies above half of the highest frequency; mean over frames.

    0 for a frame of one colour. Noise has about 0.8, a sharp photograph some hundredths.
    """
    height, width = frames_THWC.shape[1:3]
    fine_HW = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) > FINE
    shares = []
    for luma in _luma(frames_THWC):
        power_HW = np.abs(np.fft.fft2(luma - luma.mean())) ** 2
        total = power_HW.sum()
        shares.append(power_HW[fine_HW].sum() / total if total > 0 else 0.0)
    return float(np.mean(shares))


def saturation(frames_THWC: Frames) -> float:
    """Mean of (largest - smallest) / largest of each pixel's colours, 0 (grey) to 1."""
    largest_THW, smallest_THW = frames_THWC.max(axis=-1), frames_THWC.min(axis=-1)
    return float(np.mean((largest_THW - smallest_THW) / np.maximum(largest_THW, 1)))


def curves(units: Sequence[Frames]) -> dict[str, list[float]]:
    """Every measure of `appearance` by unit, and how far colours have moved since the first unit.

    Also colour_shift and contrast_shift: root mean square over the colours of the change of their mean and of their
    deviation, 0..255.
    """
    by_unit = [appearance(frames_THWC) for frames_THWC in units]
    found = {name: [measured[name] for measured in by_unit] for name in by_unit[0]}
    for name, of in (("colour_shift", "mean"), ("contrast_shift", "deviation")):
        values_UC = np.array([found[f"{colour}_{of}"] for colour in ("red", "green", "blue")]).T
        found[name] = np.sqrt(((values_UC - values_UC[0]) ** 2).mean(axis=1)).tolist()
    return found


def _luma(frames_THWC: Frames) -> list[NDArray[np.uint8]]:
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC]


def _deviation(frames_THWC: Frames) -> NDArray[np.float64]:
    """Standard deviation of each colour within a frame, the mean over frames."""
    deviations: NDArray[np.float64] = frames_THWC.std(axis=(1, 2)).mean(axis=0)
    return deviations
