"""What is measured of a model at a point: videos from captions, judged, and their distance from drawn scenes.

Shape letters: N videos, T frames, H W pixels, C = 3, D features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayramid.models.brief import Frames, write_brief
from rayramid.models.checkpoint import Model
from rayramid.models.frechet import Gaussian, frechet_distance, kernel_distance
from rayramid.models.random_features import random_features
from rayramid.models.sprites.captions import write
from rayramid.models.sprites.draw import draw_scene, held_out_scenes
from rayramid.models.sprites.judge.verdict import PARTS, judge
from rayramid.models.sprites.render import render
from rayramid.models.sprites.scene import Scene
from rayramid.platform.ablation.spec import Measure
from rayramid.platform.evaluation.appearance import sharpness
from rayramid.platform.evaluation.videos import make_videos

Features = NDArray[np.float32]

# Worlds that no dataset of the docs is drawn from.
PROMPTS, REFERENCE = 1_000_003, 2_000_003


@dataclass(frozen=True)
class Reference:
    """Drawn scenes, as the measures see them.

    Attributes:
        whole_ND: features of the videos.
        units_ND: features of each unit's frames: of the first frame, then of every 8.
        sharpness: of each unit, the mean.
    """

    whole_ND: Features
    units_ND: tuple[Features, ...]
    sharpness: tuple[float, ...]

    @classmethod
    def of(cls, videos_NTHWC: Sequence[Frames]) -> "Reference":
        """Of some videos of one length."""
        spans = units(len(videos_NTHWC[0]))
        return cls(
            random_features(np.stack(videos_NTHWC)),
            tuple(random_features(np.stack([video[span] for video in videos_NTHWC])) for span in spans),
            tuple(float(np.mean([sharpness(video[span]) for video in videos_NTHWC])) for span in spans),
        )


def units(frames: int) -> list[slice]:
    """The frames of every latent: the first one, then 8 each."""
    return [slice(0, 1), *(slice(first, min(first + 8, frames)) for first in range(1, frames, 8))]


def scenes(measure: Measure, world: int, width: int, height: int) -> Iterator[Scene]:
    """Scenes of a world without end: of held-out captions, or of images, which hold out none."""
    frames = max(measure.lengths)
    if frames > 1:
        return held_out_scenes(measure.seed + world, width, height, frames)
    return (draw_scene(measure.seed + world, index, width, height, 1) for index in count())


def reference(measure: Measure, width: int, height: int) -> Reference:
    """The drawn scenes that made ones are compared with."""
    drawn = islice(scenes(measure, REFERENCE, width, height), measure.reference)
    return Reference.of([render(scene, max(measure.lengths)) for scene in drawn])


def videos_of(model: Model, measure: Measure) -> tuple[list[Scene], list[Frames]]:
    """What was demanded and what was made of it, as long as the longest length."""
    card, frames = model.card, max(measure.lengths)
    demanded = list(islice(scenes(measure, PROMPTS, card.width, card.height), measure.prompts))
    briefs = [
        write_brief(card, write(scene.demand), seconds=frames / card.fps, seed=measure.seed + number)
        for number, scene in enumerate(demanded)
    ]
    made: list[Frames] = []
    for first in range(0, len(briefs), measure.batch):
        made += make_videos(model, briefs[first : first + measure.batch])
    return demanded, made


def measured(model: Model, measure: Measure, truth: Reference) -> dict[str, Any]:
    """The numbers of a model: distances from the truth, over all frames and by unit, and shares of what is right."""
    demanded, made = videos_of(model, measure)
    found = Reference.of(made)
    verdicts = {
        length: [judge(video[:length], scene.demand) for scene, video in zip(demanded, made, strict=True)]
        for length in measure.lengths
    }
    return {
        "frechet": _frechet(found.whole_ND, truth.whole_ND),
        "kernel": kernel_distance(found.whole_ND, truth.whole_ND),
        "frechet_by_unit": [
            _frechet(mine, theirs) for mine, theirs in zip(found.units_ND, truth.units_ND, strict=True)
        ],
        "sharpness_by_unit": [mine / theirs for mine, theirs in zip(found.sharpness, truth.sharpness, strict=True)],
        "videos": len(made),
        "right": {
            str(length): {part: sum(getattr(verdict, part) for verdict in judged) for part in (*PARTS, "fully_right")}
            for length, judged in verdicts.items()
        },
    }


def _frechet(one_ND: Features, other_ND: Features) -> float:
    return frechet_distance(Gaussian.of(one_ND), Gaussian.of(other_ND))
