"""The flow through the stages: where in time each runs and at which resolution, and one latent on its way.

Everything drawn is computed by `models/pyramid.py`: windows, endpoints and the jumps between stages.
"""

import numpy as np
import torch
from torch import Tensor

from rayramid.models import svg
from rayramid.models.pyramid import Pyramid

LEVELS = 3
SIDE = 16
LEFT, WIDTH = 170, 640
ROW, TOP = 150, 46
PICTURE = 96


def figure() -> str:
    """The SVG."""
    pyramid = Pyramid(levels=LEVELS)
    shapes = [*_axis(), *(shape for level in range(LEVELS) for shape in _stage(pyramid, level))]
    for level in range(LEVELS - 1):
        shapes += _jump(pyramid, level)
    return svg.document(LEFT + WIDTH + 130, TOP + LEVELS * ROW + 46, "A latent's way through three stages", shapes)


def clean_latent() -> Tensor:
    """A disc on a slope, [SIDE, SIDE] in about -2 to 2."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    disc = np.hypot(x - 9.5, y - 6.5) < 4.2
    return torch.from_numpy(np.where(disc, 1.6, -1.2 + x / SIDE))


def noise(seed: int) -> Tensor:
    """Ordinary noise [SIDE, SIDE]."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal((SIDE, SIDE)))


def _x(time: float) -> float:
    return LEFT + WIDTH * time


def _y(level: int) -> float:
    """The middle of a stage's row: the coarsest is at the top, since sampling begins there."""
    return TOP + ROW * (LEVELS - 1 - level) + ROW / 2


def _axis() -> list[str]:
    base = TOP + LEVELS * ROW
    ticks = [(0, "0"), (1 / 5, "1/5"), (1 / 3, "1/3"), (1 / 2, "1/2"), (2 / 3, "2/3"), (1, "1")]
    shapes = [svg.line([(_x(0), base), (_x(1), base)])]
    for time, words in ticks:
        shapes += [svg.line([(_x(time), TOP), (_x(time), base)], svg.FAINT), svg.label(_x(time), base + 16, words)]
    shapes += [svg.label(_x(0.5), base + 36, "time: the signal's share (0 is noise, 1 is data)", fill=svg.GREY)]
    return shapes


def _stage(pyramid: Pyramid, level: int) -> list[str]:
    start, end = pyramid.windows[level]
    pictures = pyramid.endpoints(clean_latent(), noise(0), level)
    y = _y(level)
    flow = [(_x(start) + PICTURE / 2 + 4, y), (_x(end) - PICTURE / 2 - 6, y)]
    words = f"1/{2**level} of the sides" if level else "full resolution"
    return [
        svg.label(6, y - 4, f"stage {level}", anchor="start"),
        svg.label(6, y + 14, words, anchor="start", size=11, fill=svg.GREY),
        *([svg.line(flow, arrow=True)] if flow[1][0] > flow[0][0] else []),
        *_picture(pictures[0], _x(start), y),
        *_picture(pictures[1], _x(end), y),
        svg.label(_x(start), y - PICTURE / 2 - 6, f"s = {start:.3f}", size=11),
        svg.label(_x(end), y - PICTURE / 2 - 6, f"e = {end:.3f}", size=11),
    ]


def _jump(pyramid: Pyramid, level: int) -> list[str]:
    """From the end of the coarser stage back in time to the start of this one."""
    end, start = pyramid.windows[level + 1][1], pyramid.windows[level][0]
    below, above = _y(level) - PICTURE / 2 - 20, _y(level + 1) + PICTURE / 2 + 3
    return [
        svg.line([(_x(end), above), (_x(start), below)], svg.INK, arrow=True, dashed=True),
        svg.label(_x(end) + 8, above + 20, "jump: enlarge, rescale, add noise", anchor="start", size=11, fill=svg.GREY),
    ]


def _picture(latent: Tensor, x: float, y: float) -> list[str]:
    """A latent as grey squares around (x, y)."""
    side = PICTURE / latent.shape[-1]
    left, top = x - PICTURE / 2, y - PICTURE / 2
    shapes = [
        svg.rectangle(left + column * side, top + row * side, side + 0.2, side + 0.2, _grey(value))
        for row, values in enumerate(latent.tolist())
        for column, value in enumerate(values)
    ]
    return [*shapes, svg.rectangle(left, top, PICTURE, PICTURE, "none", svg.GREY)]


def _grey(value: float) -> str:
    """Sixteen greys from -2.5 (black) to 2.5 (white): too coarse for rounding to show."""
    step = min(15, max(0, round((value + 2.5) * 3)))
    return f"#{step:x}{step:x}{step:x}"
