"""A shape fitted to what stands out in one colour: its centre, radius and angle in every frame.

Shape letters: T frames, H W pixels of a frame, h w pixels of a window around a sprite, P parameters (x, y, radius,
angle).
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayramid.models.sprites.render import Frames, cover, distance
from rayramid.models.sprites.vocabulary import COLOURS, SHAPES

Values = NDArray[np.floating]

FOLDS = {"circle": 0, "square": 4, "triangle": 3, "cross": 4}
"""How often a shape looks the same in a full turn; 0 is always."""
ROUNDS = 4
STEP = 0.4
"""Pixels by which a parameter is moved to see what changes."""
MARGIN = 6
BAND = 6.0
"""Pixels on both sides of an edge that tell how soft it is."""
LOOSE = 0.5
"""Weight of the first guess of radius and angle, which decides where a sprite is mostly covered."""


@dataclass(frozen=True, eq=False)
class Window:
    """A square of every frame around a sprite: offsets of its pixels from the frame's corner, and what is there."""

    x_Thw: Values
    y_Thw: Values
    share_Thw: Values
    """How much of each pixel has the sprite's colour, by its difference from the background."""
    free_Thw: Values
    """1 where the pixel tells of this sprite, 0 outside the frame and where another sprite is or is near."""
    near_Thw: NDArray[np.bool_]
    """Where the sprite is, edges included."""


@dataclass(frozen=True, eq=False)
class States:
    """Centre, radius and angle in every frame."""

    x_T: Values
    y_T: Values
    radius_T: Values
    angle_T: Values

    def cover(self, shape: str, x_Thw: Values, y_Thw: Values) -> Values:
        """How much of each pixel the shape covers."""
        return cover(shape, *self._relative(x_Thw, y_Thw))

    def distance(self, shape: str, x_Thw: Values, y_Thw: Values) -> Values:
        """Pixels outside (negative: inside) the shape."""
        return distance(shape, *self._relative(x_Thw, y_Thw))

    def _relative(self, x_Thw: Values, y_Thw: Values) -> tuple[Values, Values, Values, Values]:
        x, y, radius, angle = (
            values_T[:, None, None] for values_T in (self.x_T, self.y_T, self.radius_T, self.angle_T)
        )
        return x_Thw - x, y_Thw - y, radius, angle


def window(
    frames_THW3: Frames,
    ground_THW3: NDArray[np.float32],
    labels_THW: NDArray[np.uint8],
    number: int,
    others: Collection[int],
    centre_T2: Values,
    reach: float,
) -> Window:
    """The windows of half side `reach` around `centre_T2` for the colour with this number in the labels.

    Only the colours with the numbers of `others` can be in front of it.
    """
    frames, height, width = labels_THW.shape
    half = int(np.ceil(reach))
    offsets = np.arange(-half, half + 1)
    x_Tw = np.rint(centre_T2[:, 0]).astype(int)[:, None] + offsets
    y_Th = np.rint(centre_T2[:, 1]).astype(int)[:, None] + offsets
    inside = ((x_Tw >= 0) & (x_Tw < width))[:, None, :] & ((y_Th >= 0) & (y_Th < height))[:, :, None]
    at = (
        np.arange(frames)[:, None, None],
        np.clip(y_Th, 0, height - 1)[:, :, None],
        np.clip(x_Tw, 0, width - 1)[:, None, :],
    )
    ground = ground_THW3[at]
    toward = np.array(list(COLOURS.values())[number - 1], np.float32) - ground
    share = ((frames_THW3[at] - ground) * toward).sum(-1) / (toward**2).sum(-1)
    labels = labels_THW[at]
    free = inside & ~_widened(np.isin(labels, list(others)))
    x_Thw, y_Thw = np.broadcast_arrays(x_Tw[:, None, :], y_Th[:, :, None])
    return Window(
        x_Thw=x_Thw.astype(np.float32),
        y_Thw=y_Thw.astype(np.float32),
        share_Thw=np.clip(share, -0.2, 1.2),
        free_Thw=free.astype(np.float32),
        near_Thw=_widened(inside & (labels == number)),
    )


def guess(seen: Window, shape: str) -> States:
    """The states by moments: right where nothing covers the sprite."""
    mass_Thw = np.clip(seen.share_Thw, 0, 1) * seen.free_Thw * seen.near_Thw
    mass_T = np.maximum(mass_Thw.sum((1, 2)), 1e-6)
    x_T = (mass_Thw * seen.x_Thw).sum((1, 2)) / mass_T
    y_T = (mass_Thw * seen.y_Thw).sum((1, 2)) / mass_T
    area, phase = _MOMENTS[shape]
    angle_T = np.zeros(len(mass_T))
    if FOLDS[shape]:
        offset_Thw = seen.x_Thw - x_T[:, None, None] + 1j * (seen.y_Thw - y_T[:, None, None])
        power_Thw = offset_Thw * offset_Thw * (offset_Thw if FOLDS[shape] == 3 else offset_Thw * offset_Thw)
        angle_T = np.angle((mass_Thw * power_Thw).sum((1, 2)) / phase) / FOLDS[shape]
    return States(x_T, y_T, np.sqrt(mass_T / area), angle_T)


def refine(seen: Window, shape: str, first: States) -> States:
    """The states that explain the free pixels best, by Gauss-Newton from a first guess."""
    state_PT = np.stack([first.x_T, first.y_T, first.radius_T, first.angle_T])
    turn_T = 1 / np.maximum(first.radius_T, 1.0)
    steps_PT = STEP * np.stack([np.ones_like(turn_T)] * 3 + [turn_T])
    loose_P = LOOSE * np.array([0.0, 0, 1, 1]) + 1e-6
    guess_PT = state_PT.copy()
    count = 3 if FOLDS[shape] == 0 else 4
    for _ in range(ROUNDS):
        now_Thw = States(*state_PT).cover(shape, seen.x_Thw, seen.y_Thw)
        slopes = []
        for parameter in range(count):
            moved_PT = state_PT.copy()
            moved_PT[parameter] += steps_PT[parameter]
            slopes.append((States(*moved_PT).cover(shape, seen.x_Thw, seen.y_Thw) - now_Thw) * seen.free_Thw)
        slopes_TPN = np.stack(slopes, 1).reshape(len(now_Thw), count, -1)
        misfit_TN = ((seen.share_Thw - now_Thw) * seen.free_Thw).reshape(len(now_Thw), -1)
        normal_TPP = slopes_TPN @ slopes_TPN.transpose(0, 2, 1) + np.diag(loose_P[:count])
        pull_TP = ((guess_PT - state_PT) / steps_PT)[:count].T * loose_P[:count]
        change_TP = np.linalg.solve(normal_TPP, ((slopes_TPN @ misfit_TN[..., None])[..., 0] + pull_TP)[..., None])
        state_PT[:count] += np.clip(change_TP[..., 0].T, -6, 6) * steps_PT[:count]
        state_PT[2] = np.maximum(state_PT[2], 1.0)
    return States(*state_PT)


def misfit(seen: Window, shape: str, states: States) -> tuple[Values, Values]:
    """Per frame: the square error of the free pixels over the sprite's own squares, and its visible share."""
    cover_Thw = states.cover(shape, seen.x_Thw, seen.y_Thw)
    whole_T = np.maximum(cover_Thw.sum((1, 2)), 1e-6)
    free_T = (cover_Thw * seen.free_Thw).sum((1, 2))
    error_T = ((seen.share_Thw - cover_Thw) ** 2 * seen.free_Thw).sum((1, 2))
    return error_T / np.maximum((cover_Thw**2 * seen.free_Thw).sum((1, 2)), 0.5 * whole_T), free_T / whole_T


def softness(seen: Window, shape: str, states: States) -> Values:
    """Per frame how many times wider than the world's the edges are."""
    band_Thw = seen.free_Thw * (np.abs(states.distance(shape, seen.x_Thw, seen.y_Thw)) < BAND)
    cover_Thw = states.cover(shape, seen.x_Thw, seen.y_Thw)
    # The integral of s (1 - s) across an edge grows with its width, and noise adds nothing to it on average.
    ours_T = (seen.share_Thw * (1 - seen.share_Thw) * band_Thw).sum((1, 2))
    return ours_T / np.maximum((cover_Thw * (1 - cover_Thw) * band_Thw).sum((1, 2)), 1.0)


def _widened(mask_Thw: NDArray[np.bool_], by: int = 2) -> NDArray[np.bool_]:
    for axis in (1, 2):
        padded = np.pad(mask_Thw, [(by, by) if axis == at else (0, 0) for at in range(3)])
        length = mask_Thw.shape[axis]
        mask_Thw = np.logical_or.reduce([padded.take(range(s, s + length), axis) for s in range(2 * by + 1)])
    return mask_Thw


def _moments(shape: str) -> tuple[float, complex]:
    """Area for radius 1, and the direction of the moment that turns with the shape."""
    y, x = np.mgrid[-50:51, -50:51].astype(float)
    covered = cover(shape, x, y, 40.0, 0.0)
    moment = complex((covered * (x + 1j * y) ** max(1, FOLDS[shape])).sum())
    return float(covered.sum()) / 40**2, moment / abs(moment) if FOLDS[shape] else 1


_MOMENTS = {shape: _moments(shape) for shape in SHAPES}
