"""Which stage of the flow loses an image of the sprites world: `python tests/benchmarks/stages.py [FILE [MODEL ...]]`.

Makes images of 64 held-out captions from noise, and again with each stage begun where it would begin if all before it
had been perfect: from the true latent and noise, as in training. Prints one JSON line per stage; writes all of them to
FILE if one is given, with what made them. MODEL is the shipped one unless given.
- <model>/level_<k>: share of images fully right when stage k begins from the truth; `other` is the share from noise.
"""

import json
import sys
from itertools import islice
from pathlib import Path

import torch

from rayramid.models.brief import Brief, write_brief
from rayramid.models.checkpoint import Model, load_model
from rayramid.models.render import Projector, first_latent, request_of
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.session import Session
from rayramid.models.sprites.captions import write
from rayramid.models.sprites.draw import held_out_scenes
from rayramid.models.sprites.judge.verdict import judge
from rayramid.models.sprites.render import render
from rayramid.models.sprites.scene import Scene
from rayramid.models.stores.shipped import SPRITES
from rayramid.platform.evaluation.record import made_by

IMAGES = 64
SCENES = list(islice(held_out_scenes(0, 128, 128, 49), IMAGES))


def begin_from_truth(model: Model, session: Session, scene: Scene, brief: Brief, level: int) -> None:
    """Puts `session` where stage `level` begins for the scene's true latent, with noise of the brief's seed."""
    latent_CTHW = first_latent(model.vae, render(scene, 1)[0], brief)
    noise_CTHW = torch.randn(latent_CTHW.shape, generator=torch.Generator().manual_seed(brief.seed))
    start_CTHW, _ = model.pyramid.endpoints(latent_CTHW, noise_CTHW, level)
    session.restore({"x": start_CTHW, "position": torch.tensor([level, 0])})


def share_right(model: Model, level: int | None) -> float:
    """The share of images that are fully right when stage `level` begins from the truth; None begins from noise."""
    captions = [write(scene.demand) for scene in SCENES]
    briefs = [
        write_brief(model.card, caption, seconds=1 / model.card.fps, seed=seed) for seed, caption in enumerate(captions)
    ]
    prompts, negatives = model.text.encode(captions), model.text.encode([brief.negative_prompt for brief in briefs])
    sampler = Sampler(model.dit, model.pyramid)
    sessions = [
        sampler.start(request_of(brief, {0: prompt}, negative))
        for brief, prompt, negative in zip(briefs, prompts, negatives, strict=True)
    ]
    if level is not None:
        for session, scene, brief in zip(sessions, SCENES, briefs, strict=True):
            begin_from_truth(model, session, scene, brief, level)
    while waiting := [session for session in sessions if not session.done]:
        sampler.step(waiting)
    verdicts = [
        judge(Projector(model.vae, brief).frames(session.finished[0]), scene.demand)
        for session, scene, brief in zip(sessions, SCENES, briefs, strict=True)
    ]
    return sum(verdict.fully_right for verdict in verdicts) / IMAGES


def main(file: Path | None, urls: list[str]) -> None:
    """Measure the models, and write to a file what was measured if one is given."""
    torch.set_num_threads(1)
    measures = []
    for url in urls:
        model = load_model(url, dtype=torch.float32)
        from_noise = share_right(model, None)
        for level in reversed(range(model.pyramid.levels)):
            ours = share_right(model, level)
            line = {"measure": f"{url}/level_{level}", "ratio": ours / from_noise, "ours": ours, "other": from_noise}
            measures.append(line | {"unit": "share fully right"})
            sys.stdout.write(json.dumps(measures[-1]) + "\n")
    if file:
        command = " ".join(["python tests/benchmarks/stages.py", str(file), *urls])
        found = made_by(command) | {"seed": 0, "images": IMAGES, "measures": measures}
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:] or [SPRITES])
