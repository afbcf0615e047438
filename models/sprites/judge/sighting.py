"""One sprite of a video: its shape, where it is in every frame, how well it is drawn there.

Shape letters: T frames, H W pixels, 3 = RGB, S shapes.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayramid.models.sprites.draw import scale_of
from rayramid.models.sprites.judge.fit import (
    MARGIN,
    States,
    Values,
    Window,
    guess,
    misfit,
    refine,
    softness,
    window,
)
from rayramid.models.sprites.judge.ground import PALETTE
from rayramid.models.sprites.judge.laws import Law, find_law
from rayramid.models.sprites.render import Frames
from rayramid.models.sprites.vocabulary import SHAPES

LEAST_AREA = 100.0
"""What covers less is no sprite; in pixels of a 128-pixel side, squared."""
CLEAR, HIDDEN = 0.75, 0.4
"""Visible shares from which a sprite's state is trusted, and below which it need not be seen."""
WHOLE = 0.97
"""The visible share from which a frame tells the shape."""


@dataclass(frozen=True, eq=False)
class Sighting:
    """One sprite as it was seen.

    Attributes:
        colour: its name.
        shape: the one that fits best over all frames.
        same_shape_T: whether it fits best in this frame too; true where the sprite is partly covered.
        law: its motion, and where that has it.
        states: where it was seen, where it is not seen clearly its law's.
        error_T: square error of its pixels over its own squares; 0 is drawn by the world itself.
        softness_T: how many times wider than the world's its edges are; 0 where it is not seen clearly.
        visible_T: the share of it that nothing covers.
        missing_T: nothing covers it, and yet it is not there.
    """

    colour: str
    shape: str
    same_shape_T: NDArray[np.bool_]
    law: Law
    states: States
    error_T: Values
    softness_T: Values
    visible_T: Values
    missing_T: NDArray[np.bool_]


def sight(
    frames_THW3: Frames,
    ground_THW3: NDArray[np.float32],
    labels_THW: NDArray[np.uint8],
    number: int,
    others: Collection[int],
) -> Sighting:
    """The sprite whose colour has this number in the labels; `others` are the numbers of the other sprites."""
    height, width = labels_THW.shape[1:]
    scale = scale_of(width, height)
    mine_THW = labels_THW == number
    count_T = mine_THW.sum((1, 2))
    there_T = count_T >= 0.25 * LEAST_AREA * scale**2
    # Of one area, a triangle reaches farthest: its area is 1.3 for radius 1.
    reach = 1.1 * np.sqrt(np.quantile(count_T, 0.95) / 1.3) + MARGIN

    def look(centre_T2: Values) -> Window:
        return window(frames_THW3, ground_THW3, labels_THW, number, others, centre_T2, reach)

    medians_T2 = np.stack([_medians(mine_THW.sum(1)), _medians(mine_THW.sum(2))], 1)
    seen = look(_bridged(medians_T2, there_T))
    shape, same_shape_T, first = _recognise(seen, there_T)
    states = refine(seen, shape, first)

    _, visible_T = misfit(seen, shape, states)
    clear_T = there_T & (visible_T >= CLEAR)
    if not clear_T.any():
        clear_T = there_T
    law = find_law(states, shape, clear_T, width, height, min(1.0, scale))
    states = _either(clear_T, states, law.states)
    seen = look(np.stack([states.x_T, states.y_T], 1))
    error_T, visible_T = misfit(seen, shape, states)
    expected_T = visible_T * states.cover(shape, seen.x_Thw, seen.y_Thw).sum((1, 2))
    return Sighting(
        colour=PALETTE[number - 1],
        shape=shape,
        same_shape_T=same_shape_T,
        law=law,
        states=states,
        error_T=np.where(visible_T > HIDDEN, error_T, 0.0),
        softness_T=np.where(clear_T, softness(seen, shape, states), 0.0),
        visible_T=visible_T,
        missing_T=(visible_T > HIDDEN) & (count_T < 0.5 * expected_T),
    )


def _recognise(seen: Window, there_T: NDArray[np.bool_]) -> tuple[str, NDArray[np.bool_], States]:
    """The shape that fits best where nothing covers it, whether it does so in each frame, and its first states."""
    guesses = [guess(seen, shape) for shape in SHAPES]
    fits = [misfit(seen, shape, states) for shape, states in zip(SHAPES, guesses, strict=True)]
    error_ST, visible_ST = (np.stack(values) for values in zip(*fits, strict=True))
    visible_T = visible_ST.min(0)
    whole_T = there_T & (visible_T >= min(WHOLE, np.quantile(visible_T[there_T], 0.8)))
    best = int(error_ST[:, whole_T].mean(1).argmin())
    found = guesses[best]
    first = States(found.x_T, found.y_T, _bridged(found.radius_T, whole_T), _bridged(found.angle_T, whole_T))
    return list(SHAPES)[best], (error_ST.argmin(0) == best) | ~whole_T, first


def _either(condition_T: NDArray[np.bool_], ours: States, theirs: States) -> States:
    pairs = ((ours.x_T, theirs.x_T), (ours.y_T, theirs.y_T), (ours.radius_T, theirs.radius_T))
    return States(*(np.where(condition_T, *pair) for pair in (*pairs, (ours.angle_T, theirs.angle_T))))


def _medians(counts_TN: NDArray[np.integer]) -> Values:
    """Per row the place below which half of the counts lie."""
    summed_TN = counts_TN.cumsum(1)
    return (2 * summed_TN < summed_TN[:, -1:]).sum(1).astype(float)


def _bridged(values_TN: Values, known_T: NDArray[np.bool_]) -> Values:
    """Straight lines between what is known, [T] or [T, N]."""
    t = np.arange(len(values_TN))
    if values_TN.ndim == 1:
        return np.interp(t, t[known_T], values_TN[known_T])
    return np.stack([_bridged(column_T, known_T) for column_T in values_TN.T], 1)
