"""How videos change from unit to unit: measures of each video, and their means over many.

A model that feeds on its own units may drift: it gets softer, paler, stiller or noisier with every unit.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from rayramid.models.brief import Frames
from rayramid.platform.evaluation.appearance import curves
from rayramid.platform.evaluation.motion import motion, motion_energy, steadiness

# What people are shown; results have all of `appearance` too.
SHOWN = ("sharpness", "fine_detail", "saturation", "colour_shift", "contrast_shift", "motion_energy", "flicker", "jump")
MOST_COLUMNS = 8

Curve = Sequence[float | None]


def measures_of(units: Sequence[Frames]) -> dict[str, Any]:
    """`curves`, each a value per unit, and measures of the `whole` of a video that is given unit by unit.

    Beside those of `appearance.curves`: motion_energy and flicker (mean absolute difference of neighbouring frames, of
    1) inside of each unit, None where it has a single frame; and jump, the mean absolute difference from the frame
    before to the unit's first, of 1, None for the first unit.
    """
    several = [frames_THWC if len(frames_THWC) > 1 else None for frames_THWC in units]
    jumps = [1 - steadiness(np.stack([before[-1], after[0]])) for before, after in pairwise(units)]
    return {
        "curves": {
            **curves(units),
            "motion_energy": [None if frames is None else motion_energy(frames) for frames in several],
            "flicker": [None if frames is None else 1 - steadiness(frames) for frames in several],
            "jump": [None, *jumps],
        },
        "whole": motion(units),
    }


def sum_up(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over videos with their standard errors: `curves` by unit, as far as all videos go, and the `whole`.

    None where no video has a value, and for the error of a single one.
    """
    first = measured[0]
    return {
        "videos": len(measured),
        "curves": {
            name: _columns([list(units) for units in zip(*(each["curves"][name] for each in measured), strict=False)])
            for name in first["curves"]
        },
        "whole": {
            name: dict(zip(("mean", "error"), _mean([each["whole"][name] for each in measured]), strict=True))
            for name in first["whole"]
        },
    }


def lines(found: dict[str, Any], names: Sequence[str] = SHOWN) -> list[str]:
    """The means of some curves for people, of some units where there are many."""
    units = len(next(iter(found["curves"].values()))["mean"])
    shown = np.unique(np.linspace(0, units - 1, min(units, MOST_COLUMNS)).round().astype(int)).tolist()
    said = [f"{'by unit':<16}" + "".join(f"{unit:>9}" for unit in shown)]
    for name in names:
        means = found["curves"][name]["mean"]
        said.append(f"  {name:<14}" + "".join(f"{_short(means[unit]):>9}" for unit in shown))
    whole = found["whole"]
    said.append(
        f"over whole videos: steadiness {_short(whole['steadiness']['mean'])}, boundary jump"
        f" {_short(whole['boundary_jump']['mean'])} times the change inside of units"
    )
    return said


def _columns(units: Sequence[Sequence[float | None]]) -> dict[str, list[float | None]]:
    means = [_mean(values) for values in units]
    return {"mean": [mean for mean, _ in means], "error": [error for _, error in means]}


def _mean(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and its standard error."""
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return None, None
    error = float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None
    return float(known.mean()), error


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
