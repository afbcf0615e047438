"""The axes of one panel of a figure: where values are in pixels, with lines across it at round numbers."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rayramid.models import svg

# Left free at both ends of a panel, as a share of its width.
MARGIN = 0.06


@dataclass(frozen=True)
class Axes:
    """A panel of `width` by `height` pixels, whose left upper corner is at (`left`, `top`).

    Attributes:
        first: lowest value of x.
        last: highest value of x.
        ticks: the values at the lines across it, from its lower edge to its upper one.
        logarithmic: equal distances on the x axis are equal factors.
    """

    left: float
    top: float
    width: float
    height: float
    first: float
    last: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def x(self, value: float) -> float:
        """Of a value on the x axis."""
        if self.logarithmic:
            share = math.log(value / self.first) / max(math.log(self.last / self.first), 1e-9)
        else:
            share = (value - self.first) / max(self.last - self.first, 1e-9)
        return self.left + self.width * (MARGIN + share * (1 - 2 * MARGIN))

    def y(self, value: float) -> float:
        """Of a value on the y axis."""
        return self.top + self.height * (self.ticks[-1] - value) / (self.ticks[-1] - self.ticks[0])

    def draw(self, title: str, words_of: Callable[[float], str] = "{:g}".format) -> list[str]:
        """The title, a line with words at each tick, and the x axis without words."""
        shapes = [svg.label(self.left + self.width / 2, self.top - 10, title, size=12)]
        for tick in self.ticks:
            y = self.y(tick)
            shapes += [svg.line([(self.left, y), (self.left + self.width, y)], svg.FAINT)]
            shapes += [svg.label(self.left - 6, y + 4, words_of(tick), anchor="end", size=11)]
        base = self.top + self.height
        return [*shapes, svg.line([(self.left, base), (self.left + self.width, base)])]

    def draw_x(self, values: Iterable[float], name: str) -> list[str]:
        """Words at values of x, and what x is."""
        base = self.top + self.height
        words = [svg.label(self.x(value), base + 15, f"{value:.2g}", size=11) for value in values]
        return [*words, svg.label(self.left + self.width / 2, base + 32, name, size=11, fill=svg.GREY)]


def ticks(values: Iterable[float]) -> list[float]:
    """Round numbers around 0 and all values: three to six steps of 1, 2 or 5 times a power of ten."""
    values = list(values)
    low, high = min(0.0, *values), max(values)
    step = _step(high - low)
    lowest = math.floor(low / step)
    return [step * n for n in range(lowest, max(math.ceil(high / step), lowest + 1) + 1)]


def _step(span: float) -> float:
    power = 10.0 ** math.floor(math.log10(span / 3)) if span > 0 else 1.0
    return max((factor * power for factor in (1, 2, 5) if factor * power <= span / 2.5), default=power)
