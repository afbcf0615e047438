"""The law behind a sprite's states: which motion it is, at which rate, and how far the states stray from it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayramid.models.sprites.judge.fit import FOLDS, States
from rayramid.models.sprites.scene import SWELLING, fold
from rayramid.models.sprites.vocabulary import MOTIONS, QUICK, SLOW, SPIN, SWELL

Values = NDArray[np.floating]

# Rates from which something moves, spins, swells: well below the slowest that the world has.
MOVES, SPINS, SWELLS = 0.4 * SLOW[0], 0.4 * SPIN[0], 0.4 * SWELL[0]
BETWEEN = (SLOW[1] + QUICK[0]) / 2
FASTEST = 1.4 * QUICK[1]
AT_FIRST = 8
"""Frames that tell in which direction something sets out."""


@dataclass(frozen=True, eq=False)
class Law:
    """What the states follow.

    Attributes:
        motion: a key of MOTIONS, None if it is none of them.
        states: where the law has the sprite in every frame.
        stray: the farthest that a state is from there, in pixels (angles at the radius).
    """

    motion: str | None
    states: States
    stray: float


def find_law(states: States, shape: str, usable_T: NDArray[np.bool_], width: int, height: int, scale: float) -> Law:
    """The law of a sprite of this shape; only usable frames count.

    Args:
        states: as seen.
        shape: of the sprite.
        usable_T: where the states can be trusted.
        width: of the frame in pixels, as `height`.
        height: in pixels.
        scale: factor of the world's speeds.
    """
    t = np.flatnonzero(usable_T).astype(float)
    everywhere = np.arange(len(usable_T), dtype=float)
    radius_T, swell = _swelling(t, states.radius_T[usable_T], everywhere)
    angle_T, spin = _turning(t, states.angle_T[usable_T], FOLDS[shape], everywhere)
    margin = float(np.median(radius_T))
    x_T, speed_x = _moving(t, states.x_T[usable_T], margin, width - 1 - margin, everywhere, scale)
    y_T, speed_y = _moving(t, states.y_T[usable_T], margin, height - 1 - margin, everywhere, scale)
    law = States(x_T, y_T, radius_T, angle_T)
    motion = _name(speed_x / scale, speed_y / scale, spin, swell)
    return Law(motion, law, _stray(states, law, FOLDS[shape], usable_T))


def _name(speed_x: float, speed_y: float, spin: float, swell: float) -> str | None:
    """The one motion with these rates."""
    found = []
    for speed, ways in ((speed_x, ("left", "right")), (speed_y, ("up", "down"))):
        if abs(speed) > MOVES:
            pace = "slowly" if abs(speed) < BETWEEN else "quickly"
            found.append(f"moves {pace} {ways[speed > 0]}" if abs(speed) < FASTEST else None)
    if abs(spin) > SPINS:
        found.append("spins clockwise" if spin > 0 else "spins counterclockwise")
    if abs(swell) > SWELLS:
        found.append("grows" if swell > 0 else "shrinks")
    if len(found) > 1:
        return None
    motion = found[0] if found else "stands still"
    assert motion is None or motion in MOTIONS
    return motion


def _moving(t: Values, at: Values, low: float, high: float, everywhere: Values, scale: float) -> tuple[Values, float]:
    """A reflected straight way: the speed and start that leave the least, from a grid and then a finer one."""
    if len(t) < 2:
        return np.full(len(everywhere), at[0]), 0.0
    low, high = min(low, at.min() - 0.5), max(high, at.max() + 0.5)
    speeds = scale * np.linspace(-FASTEST * 1.2, FASTEST * 1.2, 97)
    best, start = 0.0, float(np.median(at))
    for width in (4.0, 1.0, 0.25):
        starts = (at[0] if width == 4.0 else start) + np.linspace(-width, width, 17)
        ways = fold(starts[:, None, None] + speeds[None, :, None] * t, low, high)
        left = np.minimum(np.abs(ways - at), 8.0).sum(-1)
        row, column = np.unravel_index(left.argmin(), left.shape)
        best, start = float(speeds[column]), float(starts[row])
        speeds = best + np.linspace(-1, 1, 17) * (speeds[1] - speeds[0])
    way = fold(start + best * everywhere, low, high)
    # A start at the border may be read as just before the turn: what counts is where it goes at first.
    ahead = way[min(AT_FIRST, len(way) - 1)] - way[0]
    return way, float(np.copysign(best, ahead))


def _turning(t: Values, angle: Values, folds: int, everywhere: Values) -> tuple[Values, float]:
    """A constant turn; angles are known up to the shape's symmetry."""
    if folds == 0 or len(t) < 2:
        return np.full(len(everywhere), angle[0] if folds else 0.0), 0.0
    period = 2 * np.pi / folds
    spins = np.linspace(-2 * SPIN[1], 2 * SPIN[1], 201)
    # The mean direction of what remains after a turn is long where the turn is right.
    remaining = np.exp(1j * folds * (angle - spins[:, None] * t)).mean(1)
    best = int(np.abs(remaining).argmax())
    offset = np.angle(remaining[best]) / folds
    leftover = (angle - spins[best] * t - offset + period / 2) % period - period / 2
    slope, intercept = np.polyfit(t, leftover, 1)
    spin = float(spins[best] + slope)
    return offset + intercept + spin * everywhere, spin


def _swelling(t: Values, radius: Values, everywhere: Values) -> tuple[Values, float]:
    """A radius that changes by the same amount per frame until its limit; the rate is a share of the smallest."""
    start = float(np.median(radius[:3]))
    if len(t) < 2:
        return np.full(len(everywhere), start), 0.0
    best: tuple[float, Values, float] | None = None
    for sign, limits in ((1, (1.0, SWELLING)), (-1, (1 / SWELLING, 1.0))):
        for first in start * np.linspace(0.94, 1.06, 13):
            rates = np.linspace(0, 2 * SWELL[1], 41) * first * limits[0]
            law = np.clip(first + sign * rates[:, None] * t, first * limits[0], first * limits[1])
            left = np.abs(law - radius).sum(1)
            row = int(left.argmin())
            if best is None or left[row] < best[0]:
                whole = np.clip(first + sign * rates[row] * everywhere, first * limits[0], first * limits[1])
                best = (float(left[row]), whole, float(sign * rates[row] / (first * limits[0])))
    assert best is not None
    return best[1], best[2]


def _stray(states: States, law: States, folds: int, usable_T: NDArray[np.bool_]) -> float:
    away_T = np.hypot(states.x_T - law.x_T, states.y_T - law.y_T)
    wider_T = np.abs(states.radius_T - law.radius_T)
    turned_T = np.zeros(len(away_T))
    if folds:
        period = 2 * np.pi / folds
        turned_T = np.abs((states.angle_T - law.angle_T + period / 2) % period - period / 2) * law.radius_T
    return float(np.max([away_T[usable_T], wider_T[usable_T], turned_T[usable_T]]))
