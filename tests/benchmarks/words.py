"""Which words of the sprites world a model can draw: `python tests/benchmarks/words.py [FILE [MODEL ...]]`.

Makes two videos of 17 frames of every shape with every motion, alone, so that nothing can be placed wrongly. Prints one
JSON line per kind of motion and per shape; writes all of them to FILE if one is given, with what made them. MODEL is
the shipped one unless given.
- <model>/<word>: share of the videos with that word that are fully right; `other` is the share of all videos.
"""

import json
import sys
from itertools import cycle, product
from pathlib import Path

import numpy as np
import torch

from rayramid.models.brief import write_brief
from rayramid.models.checkpoint import load_model
from rayramid.models.cpu import compute_on_cpu
from rayramid.models.sprites.captions import Actor, Demand, possible, write
from rayramid.models.sprites.judge.verdict import judge
from rayramid.models.sprites.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES
from rayramid.models.stores.shipped import SPRITES
from rayramid.platform.evaluation.record import made_by
from rayramid.platform.evaluation.videos import make_videos

FRAMES, EACH = 17, 2
GROUPS = ["stands still", "moves slowly", "moves quickly", "spins", "grows", "shrinks", *SHAPES]


def demands() -> list[Demand]:
    """Every shape with every motion, with colours and backgrounds in turn."""
    looks = zip(cycle(COLOURS), cycle(BACKGROUNDS), strict=False)
    wanted = product(SHAPES, MOTIONS, range(EACH))
    drawn = [
        Demand((Actor(colour, shape, motion),), background)
        for (shape, motion, _), (colour, background) in zip(wanted, looks, strict=False)
    ]
    return [demand for demand in drawn if possible(demand)]


def rights(url: str, asked: list[Demand]) -> list[bool]:
    """Whether the model's video of each demand is fully right."""
    model = load_model(url, dtype=torch.float32)
    captions = [write(demand) for demand in asked]
    briefs = [
        write_brief(model.card, caption, seconds=FRAMES / model.card.fps, seed=seed)
        for seed, caption in enumerate(captions)
    ]
    videos = make_videos(model, briefs)
    return [judge(video_THW3, demand).fully_right for video_THW3, demand in zip(videos, asked, strict=True)]


def main(file: Path | None, urls: list[str]) -> None:
    """Measure the models, and write to a file what was measured if one is given."""
    compute_on_cpu(1)
    measures, asked = [], demands()
    for url in urls:
        right = rights(url, asked)
        for word in GROUPS:
            ours = float(np.mean([one for one, demand in zip(right, asked, strict=True) if word in write(demand)]))
            line = {"measure": f"{url}/{word}", "ratio": ours / float(np.mean(right)), "ours": ours}
            measures.append(line | {"other": float(np.mean(right)), "unit": "share fully right"})
            sys.stdout.write(json.dumps(measures[-1]) + "\n")
    if file:
        command = " ".join(["python tests/benchmarks/words.py", str(file), *urls])
        found = made_by(command) | {"videos": len(asked), "measures": measures}
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:] or [SPRITES])
