"""The figure of an ablation: a panel for each measure, and below them what the paper claims.

Everything is drawn from the result: lines join the means over seeds, and dots are seeds. With one point there are no
lines, and the arms stand side by side.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from textwrap import wrap
from typing import Any, Literal

from rayramid.models import svg
from rayramid.models.axes import Axes, ticks
from rayramid.platform.ablation.result import DISTANCES, parts_at

COLOURS = (svg.CONTEXT, svg.TARGET, svg.TEXT, "#059669", "#7c3aed", svg.GREY)
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
        axis: what x is: operations on a logarithmic axis, where equal distances are equal factors, or units.
        series: of each arm.
        share: values are shares, drawn from 0 to 1.
    """

    title: str
    axis: Literal["training TFLOP", "unit"]
    series: Sequence[Series]
    share: bool = False

    @property
    def alone(self) -> bool:
        """Whether there is one point, so that no line joins any."""
        return all(len(series.x) == 1 for series in self.series)


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
    found = [
        Panel(
            words, "training TFLOP", [Series(a, x[a], [[p[name] for p in points] for points in arms[a]]) for a in arms]
        )
        for name, words in DISTANCES.items()
        if name in result["distances"] and name != "kernel"
    ]
    if not result["shares"]:
        return found
    length = max(result["spec"]["measure"]["lengths"])
    for part in parts_at(length):
        of_arms = [
            Series(a, x[a], [[p["right"][str(length)][part] / p["videos"] for p in points] for points in arms[a]])
            for a in arms
        ]
        found.append(Panel(f"{part} right, share of videos", "training TFLOP", of_arms, share=True))
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
    x = [each for series in panel.series for each in series.x]
    marks = ticks(value for series in panel.series for seed in series.seeds for value in seed)
    axes = Axes(left, top, PANEL, HEIGHT, min(x), max(x), marks, logarithmic=panel.axis == "training TFLOP")
    shapes = axes.draw(panel.title, (lambda share: f"{100 * share:g} %") if panel.share else "{:g}".format)
    if not panel.alone:
        shapes += axes.draw_x(panel.series[0].x, panel.axis)
    for number, (series, colour) in enumerate(zip(panel.series, COLOURS, strict=False)):
        if panel.alone:
            slot = PANEL / len(panel.series)
            places = [left + slot * (number + 0.5)]
            ends = [places[0] - slot / 4, places[0] + slot / 4]
            shapes += [svg.line([(x, axes.y(series.means[0])) for x in ends], colour)]
        else:
            places = [axes.x(x) for x in series.x]
            shapes += [svg.line(zip(places, map(axes.y, series.means), strict=True), colour)]
        for seed in series.seeds:
            shapes += [svg.dot(x, axes.y(y), colour) for x, y in zip(places, seed, strict=True)]
    return shapes
