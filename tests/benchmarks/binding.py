"""Does a model know which shape a motion is said of: `python tests/benchmarks/binding.py [FILE [MODEL ...]]`.

Takes the loss of the first moving unit of 48 drawn clips in which two shapes move in different ways: with their
captions, and with the two motions exchanged, or each reversed. Who knows only which motions there are does not mind the
exchange. Prints one JSON line per stage; writes all of them to FILE if one is given, with what made them. MODEL is the
shipped one unless given.
- <model>/exchanged/level_<k>: loss of stage k with the motions exchanged; `other` is the loss with the true captions.
- <model>/reversed/level_<k>: the same with each motion reversed.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from rayramid.models.checkpoint import Model, load_model
from rayramid.models.objective import TrainingClip, objective, training_pack
from rayramid.models.sprites.captions import Demand, write
from rayramid.models.sprites.draw import draw_scene
from rayramid.models.sprites.render import render
from rayramid.models.sprites.scene import Scene
from rayramid.models.stores.shipped import SPRITES
from rayramid.models.vae.streaming import encode_video
from rayramid.platform.evaluation.record import made_by

CLIPS, AT_ONCE, VISITS = 48, 8, 2
WORLD = 777
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


def scenes() -> list[Scene]:
    """Clips of two shapes that move in different ways and do not pass each other."""
    found: list[Scene] = []
    for index in count():
        scene = draw_scene(WORLD, index, 128, 128, 25)
        motions = {sprite.actor.motion for sprite in scene.sprites}
        if len(scene.sprites) == len(motions) == 2 and all(
            sprite.motion.kind == "moves" and scene.passing is None for sprite in scene.sprites
        ):
            found.append(scene)
        if len(found) == CLIPS:
            return found
    raise AssertionError


def exchanged(demand: Demand) -> Demand:
    """Each shape with the other's motion."""
    one, other = demand.actors
    return replace(demand, actors=(replace(one, motion=other.motion), replace(other, motion=one.motion)))


def turned(demand: Demand) -> Demand:
    """Each shape with the opposite of its motion."""
    words = [(actor, *(actor.motion or "").rsplit(" ", 1)) for actor in demand.actors]
    return replace(demand, actors=tuple(replace(actor, motion=f"{way} {OPPOSITE[to]}") for actor, way, to in words))


def losses(model: Model, latents: list[Tensor], demands: list[Demand]) -> dict[int, float]:
    """The mean loss of the first moving unit by level, with the captions of `demands`."""
    texts = model.text.encode([write(demand) for demand in demands])
    errors: dict[int, list[float]] = {}
    for first in range(0, CLIPS, AT_ONCE):
        clips = [
            TrainingClip(latents[i], texts[i].tokens_LD, texts[i].pooled_P, first_unit=1, units=1, key=VISITS * i + n)
            for i in range(first, first + AT_ONCE)
            for n in range(VISITS)
        ]
        pack, targets = training_pack(clips, model.dit.config, model.pyramid, seed=0, history_noise=0.0)
        loss = objective(model.dit(pack), targets)
        for level, error in zip(loss.levels, loss.errors.tolist(), strict=True):
            errors.setdefault(level, []).append(error)
    return {level: sum(each) / len(each) for level, each in errors.items()}


@torch.no_grad()
def measure(url: str) -> list[dict[str, object]]:
    """The lines of one model."""
    model = load_model(url, dtype=torch.float32)
    drawn = scenes()
    latents = [model.vae.normalise(encode_video(model.vae, [render(scene, 25)])) for scene in drawn]
    demands = [scene.demand for scene in drawn]
    own = losses(model, latents, demands)
    wrong: dict[str, Callable[[Demand], Demand]] = {"exchanged": exchanged, "reversed": turned}
    lines: list[dict[str, object]] = []
    for name, change in wrong.items():
        for level, loss in losses(model, latents, [change(demand) for demand in demands]).items():
            line = {"measure": f"{url}/{name}/level_{level}", "ratio": loss / own[level]}
            lines.append(line | {"ours": loss, "other": own[level], "unit": "loss"})
            sys.stdout.write(json.dumps(lines[-1]) + "\n")
    return lines


def main(file: Path | None, urls: list[str]) -> None:
    """Measure the models, and write to a file what was measured if one is given."""
    torch.set_num_threads(1)
    measures = [line for url in urls for line in measure(url)]
    if file:
        command = " ".join(["python tests/benchmarks/binding.py", str(file), *urls])
        found = made_by(command) | {"seed": 0, "clips": CLIPS, "measures": measures}
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:] or [SPRITES])
