"""Which stage of the flow loses a sprites image or video: `python tests/benchmarks/stages.py [FILE [MODEL ...]]`.

Makes images of 64 held-out captions from noise, and again with each stage begun where it would begin if all before it
had been perfect: from the true latent and noise, as in training; the coarsest begins with noise alone. The same for the
later units of 32 videos of 17 frames, whose first frames are true. Prints one JSON line per stage; writes all of them
to FILE if one is given, with what made them. MODEL is the shipped one unless given.
- <model>/level_<k>: share of images fully right when stage k begins from the truth; `other` is the share from noise.
- <model>/later_level_<k>: share of videos fully right when stage k of each later unit does; `other` likewise.
"""

import json
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from rayramid.models.brief import Brief, write_brief
from rayramid.models.checkpoint import Model, load_model
from rayramid.models.render import Projector, request_of
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.noise import keyed_noise
from rayramid.models.sampling.session import Session
from rayramid.models.sprites.captions import write
from rayramid.models.sprites.draw import held_out_scenes
from rayramid.models.sprites.judge.verdict import judge
from rayramid.models.sprites.render import render
from rayramid.models.sprites.scene import Scene
from rayramid.models.stores.shipped import SPRITES
from rayramid.models.vae.streaming import encode_video
from rayramid.platform.evaluation.record import made_by

IMAGES, VIDEOS, VIDEO_FRAMES = 64, 32, 17
SCENES = list(islice(held_out_scenes(0, 128, 128, 49), IMAGES))


def true_latent(model: Model, scene: Scene, brief: Brief) -> torch.Tensor:
    """The normalised latent [C, T, H, W] of a scene's frames."""
    return model.vae.normalise(encode_video(model.vae, [render(scene, brief.frames)]))


def begin_from_truth(model: Model, session: Session, latent_CTHW: torch.Tensor, level: int) -> None:
    """Puts `session` where stage `level` of its unit begins for a true latent, with noise of its seed and unit."""
    true_CTHW = latent_CTHW[:, session.unit : session.unit + 1]
    noise_CTHW = keyed_noise(session.request.seed, session.unit, level, tuple(true_CTHW.shape))
    start_CTHW, _ = model.pyramid.endpoints(true_CTHW, noise_CTHW, level)
    session.restore({"x": start_CTHW, "position": torch.tensor([level, 0])})


@torch.no_grad()
def share_right(model: Model, scenes: Sequence[Scene], frames: int, level: int | None) -> float:
    """The share of images, or of videos from true first frames, that are fully right.

    Stage `level` of everything that is made begins from the truth; None begins from noise.
    """
    captions = [write(scene.demand) for scene in scenes]
    briefs = [
        write_brief(model.card, caption, seconds=frames / model.card.fps, seed=seed)
        for seed, caption in enumerate(captions)
    ]
    truths = [true_latent(model, scene, brief) for scene, brief in zip(scenes, briefs, strict=True)]
    prompts, negatives = model.text.encode(captions), model.text.encode([brief.negative_prompt for brief in briefs])
    sampler = Sampler(model.dit, model.pyramid)
    sessions = [
        sampler.start(request_of(brief, {0: prompt}, negative, truth[:, :1] if frames > 1 else None))
        for brief, prompt, negative, truth in zip(briefs, prompts, negatives, truths, strict=True)
    ]
    while waiting := [(session, truth) for session, truth in zip(sessions, truths, strict=True) if not session.done]:
        for session, truth in waiting:
            if level is not None and session.level > level:
                begin_from_truth(model, session, truth, level)
        sampler.step([session for session, _ in waiting])
    verdicts = [
        judge(np.concatenate([*map(Projector(model.vae, brief).frames, session.finished)]), scene.demand)
        for session, scene, brief in zip(sessions, scenes, briefs, strict=True)
    ]
    return sum(verdict.fully_right for verdict in verdicts) / len(scenes)


def main(file: Path | None, urls: list[str]) -> None:
    """Measure the models, and write to a file what was measured if one is given."""
    torch.set_num_threads(1)
    measures = []
    for url in urls:
        model = load_model(url, dtype=torch.float32)
        for prefix, scenes, frames in (("", SCENES, 1), ("later_", SCENES[:VIDEOS], VIDEO_FRAMES)):
            from_noise = share_right(model, scenes, frames, None)
            for level in reversed(range(model.pyramid.levels - 1)):
                ours = share_right(model, scenes, frames, level)
                line = {"measure": f"{url}/{prefix}level_{level}", "ratio": ours / from_noise, "ours": ours}
                measures.append(line | {"other": from_noise, "unit": "share fully right"})
                sys.stdout.write(json.dumps(measures[-1]) + "\n")
    if file:
        command = " ".join(["python tests/benchmarks/stages.py", str(file), *urls])
        found = made_by(command) | {"seed": 0, "images": IMAGES, "videos": VIDEOS, "measures": measures}
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:] or [SPRITES])
