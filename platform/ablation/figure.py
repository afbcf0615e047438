"""The figure of an ablation: a panel for each measure, and below them what the paper claims.

Everything is drawn from the result: lines join the means over seeds, and dots are seeds. With one point there are no
lines, and the arms stand side by side.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from textwrap import wrap
from typing import Any

from rayramid.models import svg
from rayramid.platform.ablation.result import DISTANCES

COLOURS = (svg.CONTEXT, svg.TARGET, svg.TEXT, "#059669", "#7c3aed", svg.GREY)
PARTS = ("colours", "shapes", "motions", "sharp", "persistent")
COLUMNS, PANEL, HEIGHT = 3, 250, 170
LEFT, GAP, TOP, CHARACTERS = 52, 66, 66, 125


@dataclass(frozen=True)
class Series:
    """One arm in a panel: of every seed the values at every point."""

    name: str
    x: Sequence[float]
    seeds: Sequence[Sequence[float]]

    @property
    def means(self) -> list[float]:
        """Over the seeds."""
        return [fmean(values) for values in zip(*self.seeds, strict=True)]


@dataclass(frozen=True)
class Panel:
    """One measure of all arms.

    Attributes:
        title: what is measured.
        axis: what x is.
        series: of each arm.
        share: values are shares, drawn from 0 to 1.
    """

    title: str
    axis: str
    series: Sequence[Series]
    share: bool = False


def figure(result: Mapping[str, Any]) -> str:
    """The SVG."""
    found = panels(result)
    spec = result["spec"]
    shapes = [svg.label(12, 24, spec["question"], anchor="start", size=15), *_legend(list(result["arms"]))]
    for number, panel in enumerate(found):
        row, column = divmod(number, COLUMNS)
        shapes += _draw(panel, LEFT + column * (PANEL + GAP), TOP + 26 + row * (HEIGHT + GAP))
    below = TOP + 26 + math.ceil(len(found) / COLUMNS) * (HEIGHT + GAP)
    words = _claim(spec["claim"])
    shapes += [
        svg.label(12, below + 18 * number, line, anchor="start", size=12, fill=svg.GREY)
        for number, line in enumerate(words)
    ]
    width = LEFT + COLUMNS * (PANEL + GAP) - GAP + 24
    return svg.document(width, below + 18 * len(words), spec["title"], shapes)


def panels(result: Mapping[str, Any]) -> list[Panel]:
    """Distances, then the parts of verdicts over the longest length, then distances by unit."""
    arms = {name: list(arm["seeds"].values()) for name, arm in result["arms"].items()}
    x = {name: [fmean(p["tflop"] for p in points) for points in zip(*arms[name], strict=True)] for name in arms}
    axis = "training TFLOP"
    found = [
        Panel(words, axis, [Series(a, x[a], [[p[name] for p in points] for points in arms[a]]) for a in arms])
        for name, words in DISTANCES.items()
        if name in result["distances"] and name != "kernel"
    ]
    if not result["shares"]:
        return found
    length = max(result["spec"]["measure"]["lengths"])
    for part in PARTS if length > 1 else ("colours", "shapes", "sharp"):
        of_arms = [
            Series(a, x[a], [[p["right"][str(length)][part] / p["videos"] for p in points] for points in arms[a]])
            for a in arms
        ]
        found.append(Panel(f"{part} right, share of videos", axis, of_arms, share=True))
    if length > 1:
        for name, words in (("frechet", "Fréchet distance"), ("sharpness", "sharpness (drawn scenes: 1)")):
            curves = {a: [points[-1][f"{name}_by_unit"] for points in arms[a]] for a in arms}
            series = [Series(a, range(len(curves[a][0])), curves[a]) for a in arms]
            found.append(Panel(f"{words}, at the end", "unit", series))
    return found


def _legend(names: Sequence[str]) -> list[str]:
    shapes, x = [], 12.0
    for name, colour in zip(names, COLOURS, strict=False):
        shapes += [svg.rectangle(x, 40, 14, 8, colour), svg.label(x + 20, 49, name, anchor="start", size=12)]
        x += 44 + 6.6 * len(name)
    return shapes


def _claim(claim: Mapping[str, str] | None) -> list[str]:
    return wrap(f"The paper, {claim['source']}: {claim['words']}", CHARACTERS) if claim else []


def _draw(panel: Panel, left: float, top: float) -> list[str]:
    base = top + HEIGHT
    values = [value for series in panel.series for seed in series.seeds for value in seed]
    low, high = (0.0, max(values)) if panel.share or min(values) >= 0 else (min(values), max(values))
    step = _step(high - low)
    low, high = math.floor(low / step) * step, max(math.ceil(high / step) * step, low + step)
    alone = all(len(series.x) == 1 for series in panel.series)
    end = max(x for series in panel.series for x in series.x) or 1

    def at(number: int, x: float, y: float) -> tuple[float, float]:
        across = (number + 0.5) / len(panel.series) if alone else x / end
        return left + PANEL * across, base - HEIGHT * (y - low) / (high - low)

    shapes = [svg.label(left + PANEL / 2, top - 10, panel.title, size=12)]
    for tick in range(round((high - low) / step) + 1):
        value = low + tick * step
        _, y = at(0, 0, value)
        shapes += [svg.line([(left, y), (left + PANEL, y)], svg.FAINT)]
        words = f"{100 * value:g} %" if panel.share else f"{value:g}"
        shapes += [svg.label(left - 6, y + 4, words, anchor="end", size=11)]
    shapes += [svg.line([(left, base), (left + PANEL, base)])]
    if not alone:
        shapes += [svg.label(at(0, x, low)[0], base + 15, f"{x:.3g}", size=11) for x in panel.series[0].x]
        shapes += [svg.label(left + PANEL / 2, base + 32, panel.axis, size=11, fill=svg.GREY)]
    for number, (series, colour) in enumerate(zip(panel.series, COLOURS, strict=False)):
        means = [at(number, x, y) for x, y in zip(series.x, series.means, strict=True)]
        if alone:
            (x, y), half = means[0], PANEL / len(panel.series) / 4
            means = [(x - half, y), (x + half, y)]
        shapes += [svg.line(means, colour)]
        for seed in series.seeds:
            shapes += [svg.dot(*at(number, x, y), colour) for x, y in zip(series.x, seed, strict=True)]
    return shapes


def _step(span: float) -> float:
    """Of three to six ticks: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(span / 3)) if span > 0 else 1.0
    return max((factor * power for factor in (1, 2, 5) if factor * power <= span / 2.5), default=power)
