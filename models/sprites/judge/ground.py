"""The background behind the sprites, and which pixels stand out from it in which colour.

Shape letters: T frames, H W pixels, 3 = RGB, N pixels in a row, B basis functions (1, x, y).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayramid.models.sprites.render import Frames
from rayramid.models.sprites.vocabulary import BACKGROUNDS, COLOURS

STEP = 4
"""Every so many pixels in x and y take part in the fit."""
NEAR = (70.0, 45.0, 30.0, 30.0)
"""RGB distances within which a pixel counts as background, in the rounds of the fit."""
STANDS_OUT = 30.0
"""RGB distance from which a pixel is looked at as a sprite's."""
PALETTE = tuple(COLOURS)


@dataclass(frozen=True, eq=False)
class Ground:
    """A smoothly shaded background per frame, its name, and how far the background's pixels are from it (RMS)."""

    image_THW3: NDArray[np.float32]
    names: tuple[str, ...]
    share_T: NDArray[np.floating]
    """Pixels that are background, of all."""
    noise_T: NDArray[np.floating]


def fit_ground(frames_THW3: Frames) -> Ground:
    """The nearest background of the world in each frame, as a plane per channel through the pixels that are near it."""
    frames, height, width = frames_THW3.shape[:3]
    basis_HWB = np.stack(
        np.broadcast_arrays(1.0, np.linspace(-0.5, 0.5, width)[None, :], np.linspace(-0.5, 0.5, height)[:, None]), -1
    ).astype(np.float32)
    basis_NB = basis_HWB[::STEP, ::STEP].reshape(-1, 3)
    pixels_TN3 = frames_THW3[:, ::STEP, ::STEP].reshape(frames, -1, 3).astype(np.float32)
    colours_K3 = np.array(list(BACKGROUNDS.values()), np.float32)
    distance_TKN = np.linalg.norm(pixels_TN3[:, None] - colours_K3[:, None], axis=-1)
    best_T = (distance_TKN < NEAR[0]).sum(-1).argmax(-1)
    planes_TB3 = np.zeros((frames, 3, 3), np.float32)
    planes_TB3[:, 0] = colours_K3[best_T]
    for near in NEAR:
        misfit_TN = np.linalg.norm(pixels_TN3 - basis_NB @ planes_TB3, axis=-1)
        inside_TN = (misfit_TN < near).astype(np.float32)
        weighted_TNB = basis_NB * inside_TN[..., None]
        normal_TBB = weighted_TNB.transpose(0, 2, 1) @ basis_NB + 1e-3 * np.eye(3, dtype=np.float32)
        planes_TB3 = np.linalg.solve(normal_TBB, weighted_TNB.transpose(0, 2, 1) @ pixels_TN3)
    misfit_TN = np.linalg.norm(pixels_TN3 - basis_NB @ planes_TB3, axis=-1)
    inside_TN = misfit_TN < NEAR[-1]
    middle_TK = np.linalg.norm(planes_TB3[:, None, 0] - colours_K3, axis=-1)
    noise_T = np.sqrt((misfit_TN**2 * inside_TN).sum(1) / np.maximum(1, inside_TN.sum(1)) / 3)
    names = tuple(list(BACKGROUNDS)[number] for number in middle_TK.argmin(-1))
    image_THW3 = (basis_HWB.reshape(-1, 3) @ planes_TB3).reshape(frames, height, width, 3)
    return Ground(image_THW3, names, inside_TN.mean(1), noise_T)


def label(frames_THW3: Frames, ground_THW3: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[T, H, W]: 1 + the palette's number of the sprite colour that covers more than half of a pixel, 0 elsewhere.

    A pixel is taken as a mixture of background and one colour, the one that explains it best.
    """
    difference_THW3 = frames_THW3 - ground_THW3
    out_THW = np.einsum("thwc,thwc->thw", difference_THW3, difference_THW3) > STANDS_OUT**2
    difference_N3, ground_N3 = difference_THW3[out_THW], ground_THW3[out_THW]
    least_N = np.full(len(ground_N3), np.inf, np.float32)
    labels_N = np.zeros(len(ground_N3), np.uint8)
    for number, colour in enumerate(COLOURS.values(), start=1):
        toward_N3 = np.array(colour, np.float32) - ground_N3
        share_N = (difference_N3 * toward_N3).sum(1) / (toward_N3**2).sum(1)
        misfit_N = ((difference_N3 - np.clip(share_N, 0, 1)[:, None] * toward_N3) ** 2).sum(1)
        better_N = misfit_N < least_N
        least_N[better_N] = misfit_N[better_N]
        labels_N[better_N] = np.where(share_N[better_N] > 0.5, number, 0)
    labels_THW = np.zeros(out_THW.shape, np.uint8)
    labels_THW[out_THW] = labels_N
    return labels_THW
