"""What every step of a phase reads: a pure function of the phase's clips, the seed and the step.

Videos and images each come in a new random order every epoch; so many of each in a step that images keep their share.
Which rank reads what changes no number: a step's loss is the mean over its clips, whoever computes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import floor
from typing import Literal

import numpy as np

from rayramid.platform.training.draw import draw, permutation
from rayramid.platform.training.vae.spec import Phase

Kind = Literal["video", "image"]


@dataclass(frozen=True, slots=True)
class Visit:
    """One clip, or one image, of a step.

    Attributes:
        kind: what it is.
        row: which of the phase's videos or images.
        key: what its crop and noise are drawn from.
    """

    kind: Kind
    row: int
    key: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank does of a visit: the `part`-th of `parts` stretches of its time."""

    visit: Visit
    part: int = 0
    parts: int = 1


def phase_seed(seed: int, phase: Phase) -> int:
    """The seed of a phase: phases that read the same clips see them in other orders and crops."""
    return draw("vae phase", seed, phase.name)


def plan(videos: int, images: int, phase: Phase, seed: int, step: int) -> list[Visit]:
    """The visits of one step over all workers, videos first.

    Args:
        videos: how many there are.
        images: how many there are.
        phase: says how many of each a step has.
        seed: of the phase.
        step: of the phase, from 0.
    """
    before, after = (_images_until(phase, i) for i in (step, step + 1))
    earlier = step * phase.clips_per_step - before
    many = phase.clips_per_step - (after - before)
    return [_visit("video", videos, seed, earlier + i) for i in range(many)] + [
        _visit("image", images, seed, i) for i in range(before, after)
    ]


def deal(visits: Sequence[Visit], frames: int, world: int, rank: int, time_split: int) -> list[Part]:
    """What `rank` does: each video goes to the neighbours with the least to do, then each image to one rank.

    Args:
        visits: of the step.
        frames: of a video.
        world: ranks in all; those that `time_split` leaves over read images alone.
        rank: which is asked for.
        time_split: neighbouring ranks that share a video.
    """
    load = [0.0] * world
    mine = []
    for visit in visits:
        parts = sharers(time_split, world) if visit.kind == "video" else 1
        first = min(range(0, world - parts + 1, parts), key=lambda r: load[r])
        for member in range(first, first + parts):
            load[member] += (frames if visit.kind == "video" else 1) / parts
        if first <= rank < first + parts:
            mine.append(Part(visit, rank - first, parts))
    return mine


def sharers(time_split: int, world: int) -> int:
    """How many ranks share a video's time."""
    return min(time_split, world)


def _images_until(phase: Phase, step: int) -> int:
    return floor(step * phase.clips_per_step * phase.image_share)


def _visit(kind: Kind, clips: int, seed: int, number: int) -> Visit:
    epoch, place = divmod(number, clips)
    row = int(_order(clips, seed, kind, epoch)[place])
    return Visit(kind, row, draw("vae visit", seed, kind, row, epoch))


@lru_cache(maxsize=8)
def _order(clips: int, seed: int, kind: Kind, epoch: int) -> np.ndarray:
    return permutation(clips, "vae order", seed, kind, epoch)
