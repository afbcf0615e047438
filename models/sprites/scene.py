"""Scenes: sprites with their places and rates, and the laws that move them.

Shape letters: T frames.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayramid.models.sprites.captions import Actor, Demand, Passing
from rayramid.models.sprites.vocabulary import MOTIONS, Motion

Values = NDArray[np.floating]

# A sprite that grows does so to this multiple of its radius, one that shrinks to its inverse.
SWELLING = 1.8


@dataclass(frozen=True)
class Sprite:
    """One sprite as it is at frame 0, in pixels; `radius` is that of the circle through its corners.

    `rate` is per frame, in the unit of its motion: pixels, radians, or pixels of radius.
    """

    actor: Actor
    x: float
    y: float
    radius: float
    rate: float = 0.0

    @property
    def motion(self) -> Motion:
        """The law that it follows; in an image it rests."""
        return MOTIONS[self.actor.motion or "stands still"]


@dataclass(frozen=True)
class Scene:
    """All that a clip shows. `shade` points to where the background is brighter."""

    width: int
    height: int
    background: str
    shade: tuple[float, float]
    sprites: tuple[Sprite, ...]
    passing: Passing | None = None

    @property
    def demand(self) -> Demand:
        """What the caption says."""
        return Demand(tuple(sprite.actor for sprite in self.sprites), self.background, self.passing)

    @property
    def back_to_front(self) -> tuple[Sprite, ...]:
        """The sprites in the order in which they cover each other."""
        if self.passing == "in front of":
            return (self.sprites[1], self.sprites[0], *self.sprites[2:])
        return self.sprites


@dataclass(frozen=True, eq=False)
class Track:
    """A sprite over time: centre, radius, angle (clockwise, in radians)."""

    x_T: Values
    y_T: Values
    radius_T: Values
    angle_T: Values


def track(sprite: Sprite, width: int, height: int, frames: int, start: int = 0) -> Track:
    """Where a sprite is in `frames` frames from frame `start` on.

    What moves turns back where the circle through its corners meets the border; what grows or shrinks stops at its
    limit.
    """
    t = np.arange(start, start + frames, dtype=np.float64)
    motion, radius = sprite.motion, sprite.radius
    x_T, y_T = np.full(frames, sprite.x), np.full(frames, sprite.y)
    radius_T, angle_T = np.full(frames, radius), np.zeros(frames)
    if motion.kind == "moves":
        x_T = fold(x_T + motion.direction[0] * sprite.rate * t, radius, width - 1 - radius)
        y_T = fold(y_T + motion.direction[1] * sprite.rate * t, radius, height - 1 - radius)
    elif motion.kind == "spins":
        angle_T = motion.sign * sprite.rate * t
    elif motion.kind == "swells":
        limits = (radius, radius * SWELLING) if motion.sign > 0 else (radius / SWELLING, radius)
        radius_T = np.clip(radius + motion.sign * sprite.rate * t, *limits)
    return Track(x_T, y_T, radius_T, angle_T)


def fold(way: Values, low: float, high: float) -> Values:
    """A straight way reflected at `low` and `high` as often as it meets them."""
    room = high - low
    return low + room - np.abs(np.mod(way - low, 2 * room) - room)
