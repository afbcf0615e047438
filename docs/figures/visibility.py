"""The visibility table of one packed training sequence, as attention gets it."""

from rayramid.models import svg
from rayramid.models.history import Segment, sees
from rayramid.models.presets import preset
from rayramid.models.sequence import training_segments

FIRST_UNIT, UNITS, LATENTS, TEXT = 2, 2, 4, 128
# Latents of 640x384.
GRID = (LATENTS, 48, 80)
CELL, LEFT, TOP = 30, 150, 70
COLOURS = {"text": svg.TEXT, "context": svg.CONTEXT, "target": svg.TARGET}


def figure() -> str:
    """The SVG."""
    config = preset("miniflux-2b")
    segments = training_segments(config, GRID, TEXT, FIRST_UNIT, UNITS)
    shapes = []
    for row, query in enumerate(segments):
        y = TOP + CELL * row
        shapes += [svg.label(LEFT - 8, y + 20, f"{name(query)} · {query.length:,}", anchor="end", size=12)]
        for column, key in enumerate(segments):
            fill = COLOURS[key.kind] if sees(query, key, config.levels) else svg.FAINT
            shapes += [svg.rectangle(LEFT + CELL * column + 1, y + 1, CELL - 2, CELL - 2, fill)]
    for column, key in enumerate(segments):
        x, y = LEFT + CELL * (column + 0.5) + 4, TOP - 8
        shapes += [f'<g transform="rotate(-60 {x:g} {y:g})">{svg.label(x, y, name(key), anchor="start", size=12)}</g>']
    shapes += [svg.label(8, 24, "rows see columns", anchor="start", size=12, fill=svg.GREY)]
    shapes += [svg.label(8, 42, "with numbers of tokens", anchor="start", size=12, fill=svg.GREY)]
    side = CELL * len(segments)
    return svg.document(LEFT + side + 30, TOP + side + 14, "Who sees whom in a packed training sequence", shapes)


def name(segment: Segment) -> str:
    """As in the text: C and X for context copies and targets, with unit and level."""
    letter = {"text": "text", "context": "C", "target": "X"}[segment.kind]
    return letter if segment.kind == "text" else f"{letter}({segment.unit}, {segment.level})"
