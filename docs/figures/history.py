"""The temporal pyramid: at which level each target sees each unit before it, as `models/history.py` says."""

from rayramid.models import svg
from rayramid.models.history import context_of

LEVELS = 3
UNIT = 5
# Tokens of one latent of 1280x768 at full resolution.
TOKENS = 48 * 80
CELL, LEFT, TOP = 92, 92, 40


def figure() -> str:
    """The SVG."""
    shapes = [
        svg.label(LEFT + CELL * (unit + 0.5), TOP - 14, f"unit {unit}", size=12, fill=svg.GREY)
        for unit in range(UNIT + 1)
    ]
    for row, level in enumerate(reversed(range(LEVELS))):
        shapes += _row(level, TOP + CELL * row)
    width, height = LEFT + CELL * (UNIT + 1) + 140, TOP + CELL * LEVELS + 12
    return svg.document(width, height, f"What the targets of unit {UNIT} see of the units before", shapes)


def _row(level: int, top: float) -> list[str]:
    seen = context_of(UNIT, level, LEVELS, target=True)
    middle = top + CELL / 2
    tokens = sum(TOKENS // 4**each for each in [level, *(past_level for _, past_level in seen)])
    shapes = [svg.label(8, middle + 5, f"stage {level}", anchor="start")]
    shapes += [shape for unit, past_level in seen for shape in _unit(unit, past_level, middle, svg.CONTEXT)]
    shapes += _unit(UNIT, level, middle, svg.TARGET)
    shapes += [svg.label(LEFT + CELL * (UNIT + 1) + 14, middle + 5, f"{tokens:,} tokens", anchor="start", size=12)]
    return shapes


def _unit(unit: int, level: int, middle: float, colour: str) -> list[str]:
    side = (CELL - 20) / 2**level
    x = LEFT + CELL * (unit + 0.5)
    words = f"1/{2**level}" if level else "1"
    return [
        svg.rectangle(x - side / 2, middle - side / 2, side, side, colour),
        svg.label(x, middle + 4, words, size=11 if side > 20 else 9, fill="#ffffff"),
    ]
