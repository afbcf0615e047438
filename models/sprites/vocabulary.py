"""The words of the sprites world and what they stand for: shapes, colours, backgrounds, motions.

All lengths are pixels of a 128-pixel side, all rates are per frame.
"""

from dataclasses import dataclass
from typing import Literal

SIDE = 128

# How far the corners lie out, so that shapes of one size have about the same area.
SHAPES = {"circle": 1.0, "square": 1.25, "triangle": 1.5, "cross": 1.3}

# Any colour stands out from any background, wherever that is shaded.
COLOURS = {
    "red": (225, 45, 40),
    "yellow": (250, 220, 60),
    "green": (50, 180, 80),
    "blue": (40, 95, 230),
    "purple": (150, 50, 205),
    "white": (250, 250, 250),
}
BACKGROUNDS = {
    "grey": (120, 120, 120),
    "brown": (115, 85, 60),
    "navy": (35, 45, 85),
    "pink": (205, 140, 158),
}

Range = tuple[float, float]


@dataclass(frozen=True)
class Motion:
    """A law of motion; `rate` is the range that a sprite's own rate is drawn from.

    moves: `direction` in x and y (down), pixels. spins: `sign` 1 is clockwise, radians. swells: `sign` 1 grows, the
    share of its smallest radius.
    """

    kind: Literal["rests", "moves", "spins", "swells"]
    rate: Range = (0.0, 0.0)
    direction: tuple[int, int] = (0, 0)
    sign: int = 1


SLOW: Range = (0.4, 0.6)
QUICK: Range = (1.1, 1.4)
SPIN: Range = (0.044, 0.061)
SWELL: Range = (0.015, 0.02)

WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOTIONS = {
    "stands still": Motion("rests"),
    **{f"moves slowly {way}": Motion("moves", SLOW, direction) for way, direction in WAYS.items()},
    **{f"moves quickly {way}": Motion("moves", QUICK, direction) for way, direction in WAYS.items()},
    "spins clockwise": Motion("spins", SPIN),
    "spins counterclockwise": Motion("spins", SPIN, sign=-1),
    "grows": Motion("swells", SWELL),
    "shrinks": Motion("swells", SWELL, sign=-1),
}
