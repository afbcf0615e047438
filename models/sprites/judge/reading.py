"""What a video of the sprites world shows, read from its pixels without knowing its caption.

Shape letters: T frames, H W pixels, 3 = RGB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rayramid.models.sprites.draw import scale_of
from rayramid.models.sprites.judge.fit import States, Values
from rayramid.models.sprites.judge.ground import PALETTE, Ground, fit_ground, label
from rayramid.models.sprites.judge.sighting import LEAST_AREA, Sighting, sight
from rayramid.models.sprites.render import Frames

LEAST_FRAMES = 0.25
"""The share of frames in which a colour must be seen to be a sprite, not a flaw."""
OVERLAP = 20.0
"""Where two sprites share so much, one of them is in front; in pixels of a 128-pixel side, squared."""
INSIDE = 0.9
"""Cover of the pixels that are surely a sprite's."""
NEARBY = 6.0
"""Pixels of radius around a sprite where its colour is no surplus."""
EVERY = 2
"""Every so many pixels in x and y are enough for overlaps and surplus."""


@dataclass(frozen=True)
class Meeting:
    """Two sprites that overlap.

    Attributes:
        frames: in how many frames.
        in_front: by colour, in how many of them it is the one that is seen.
        overlap: the largest, as a share of the smaller sprite.
    """

    frames: int
    in_front: Mapping[str, int]
    overlap: float


@dataclass(frozen=True, eq=False)
class Reading:
    """A whole video.

    Attributes:
        ground: the background.
        sightings: by colour.
        meetings: by the two colours.
        surplus_T: pixels in a sprite's colour where no sprite is, of a 128-pixel side.
    """

    ground: Ground
    sightings: Mapping[str, Sighting]
    meetings: Mapping[frozenset[str], Meeting]
    surplus_T: Values


def read(frames_THW3: Frames) -> Reading:
    """What a video [T, H, W, 3] shows."""
    height, width = frames_THW3.shape[1:3]
    scale = scale_of(width, height)
    ground = fit_ground(frames_THW3)
    labels_THW = label(frames_THW3, ground.image_THW3)
    numbers = [
        number
        for number in range(1, len(PALETTE) + 1)
        if ((labels_THW == number).sum((1, 2)) >= LEAST_AREA * scale**2).mean() >= LEAST_FRAMES
    ]
    sightings = [
        sight(frames_THW3, ground.image_THW3, labels_THW, number, [other for other in numbers if other != number])
        for number in numbers
    ]
    sparse_THW = labels_THW[:, ::EVERY, ::EVERY]
    pixels = EVERY**2 / scale**2
    y_THW, x_THW = np.mgrid[:height:EVERY, :width:EVERY].astype(np.float32)[:, None]
    surplus_THW = sparse_THW != 0
    inside = {}
    for seen in sightings:
        inside[seen.colour] = seen.states.cover(seen.shape, x_THW, y_THW) > INSIDE
        wider = States(seen.states.x_T, seen.states.y_T, seen.states.radius_T + NEARBY, seen.states.angle_T)
        surplus_THW &= wider.cover(seen.shape, x_THW, y_THW) == 0
    meetings = {}
    for first, second in combinations(inside, 2):
        met = _meeting(sparse_THW, {colour: inside[colour] for colour in (first, second)}, OVERLAP / pixels)
        if met is not None:
            meetings[frozenset([first, second])] = met
    return Reading(ground, {seen.colour: seen for seen in sightings}, meetings, surplus_THW.sum((1, 2)) * pixels)


def _meeting(labels_THW: NDArray[np.uint8], inside: Mapping[str, NDArray[np.bool_]], least: float) -> Meeting | None:
    one_THW, other_THW = inside.values()
    both_THW = one_THW & other_THW
    shared_T = both_THW.sum((1, 2))
    met_T = shared_T >= least
    if not met_T.any():
        return None
    seen = {colour: (both_THW & (labels_THW == 1 + PALETTE.index(colour))).sum((1, 2)) for colour in inside}
    front_T = np.stack(list(seen.values())).argmax(0)
    smaller_T = np.minimum(one_THW.sum((1, 2)), other_THW.sum((1, 2)))
    return Meeting(
        frames=int(met_T.sum()),
        in_front={colour: int((front_T == place)[met_T].sum()) for place, colour in enumerate(inside)},
        overlap=float((shared_T[met_T] / smaller_T[met_T]).max()),
    )
