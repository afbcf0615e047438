"""Clips of drifting waves, cut and scored by the real jobs without Ray; and a VAE of a few thousand weights."""

from pathlib import Path

import numpy as np

from rayramid.pipelines import plan as plans
from rayramid.pipelines.clips import read_clips
from rayramid.pipelines.sources import list_sources
from rayramid.pipelines.spec import DataSpec, Thresholds
from rayramid.pipelines.stages import Work, score_work, shots_work
from rayramid.pipelines.worker import work

TINY = {
    "preset": "small",
    "encoder_channels": [8, 8, 8],
    "decoder_channels": [8, 8, 8],
    "norm_groups": 4,
    "latent_channels": 4,
}


def wave(number: int, frames: int = 33, side: int = 48) -> np.ndarray:
    """[T, H, W, 3]: a coloured wave with a speed and a direction of its own."""
    draws = np.random.default_rng(number)
    angle, phase = draws.uniform(0, 2 * np.pi, 2)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(side), np.arange(side), indexing="ij")
    bump = np.sin((np.cos(angle) * x + np.sin(angle) * y + (number % 3 - 1) * t) / 5 + phase)
    return (128 + 100 * bump[..., None] * draws.uniform(0.3, 1, 3)).astype(np.uint8)


def do(root: str, items: Work) -> None:
    """A job's work here, without Ray: plan, shards, receipts."""
    plans.write_plans(root, items.job, plans.cut(items.items, items.largest, 1), generation=0)
    for shard in plans.read_plans(root, items.job).shards:
        work(root, "test", items.recipe(), *plans.read_shard(items.job, shard.plan, shard.row_group))


def cut_clips(root: Path, videos: Path, *, score: bool = False) -> None:
    """What the jobs `shots` (and `score`) leave below `root` of all files in `videos`."""
    spec = DataSpec.model_validate(
        {
            "root": str(root),
            "sources": [{"folder": str(videos)}],
            "shots": {"detector": "none", "min_s": 0.5},
            "split": {"val": 0.25},
        }
    )
    sources = list_sources(spec.sources, spec.split.val)
    do(str(root), shots_work(spec, sources))
    if score:
        do(str(root), score_work(spec, read_clips(str(root), Thresholds()).kept))
