"""How videos of the shipped model change from unit to unit, from the results of its suite."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayramid.models import svg
from rayramid.models.axes import Axes, ticks

RESULTS = Path(__file__).parents[1] / "results" / "suite.json"
PANELS = {
    "sharpness": "sharpness (variance of the Laplacian)",
    "saturation": "saturation, 0 to 1",
    "motion_energy": "motion energy inside of the unit",
    "colour_shift": "shift of colours, of 255",
    "contrast_shift": "shift of contrast, of 255",
    "jump": "jump into the unit, of 1",
}
COLUMNS, WIDTH, HEIGHT = 3, 250, 150
LEFT, TOP, GAP = 52, 62, 66


def figure() -> str:
    """The SVG."""
    drift = json.loads(RESULTS.read_text(encoding="utf-8"))["drift"]
    words = f"Means of {drift['videos']} videos, each with its standard error above and below"
    shapes = [svg.label(12, 24, words, anchor="start")]
    for number, (name, title) in enumerate(PANELS.items()):
        row, column = divmod(number, COLUMNS)
        left, top = LEFT + column * (WIDTH + GAP), TOP + row * (HEIGHT + GAP)
        shapes += _panel(drift["curves"][name], title, left, top)
    rows = -(-len(PANELS) // COLUMNS)
    width, height = LEFT + COLUMNS * (WIDTH + GAP) - GAP + 24, TOP + rows * (HEIGHT + GAP) - GAP + 44
    return svg.document(width, height, "How videos of the model that ships change from unit to unit", shapes)


def _panel(curve: Mapping[str, Any], title: str, left: float, top: float) -> list[str]:
    """One measure by unit; where no video has a value, as motion in a unit of one frame, there is no dot."""
    known = [
        (unit, mean, error or 0.0)
        for unit, (mean, error) in enumerate(zip(curve["mean"], curve["error"], strict=True))
        if mean is not None
    ]
    units = range(len(curve["mean"]))
    marks = ticks(mean + sign * error for _, mean, error in known for sign in (-1, 1))
    axes = Axes(left, top, WIDTH, HEIGHT, units[0], units[-1], marks)
    shapes = [*axes.draw(title), *axes.draw_x(units, "unit")]
    shapes += [svg.line([(axes.x(unit), axes.y(mean)) for unit, mean, _ in known], svg.CONTEXT)]
    for unit, mean, error in known:
        bar = [(axes.x(unit), axes.y(mean - error)), (axes.x(unit), axes.y(mean + error))]
        shapes += [svg.line(bar, svg.CONTEXT), svg.dot(axes.x(unit), axes.y(mean), svg.CONTEXT)]
    return shapes
