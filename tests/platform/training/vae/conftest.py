"""Clips of drifting waves and two images, cut and scored by the real jobs; runs of a VAE of a few thousand weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rayramid.models.media.write import write_mp4
from rayramid.pipelines import plan as plans
from rayramid.pipelines.clips import read_clips
from rayramid.pipelines.sources import list_sources
from rayramid.pipelines.spec import DataSpec, Keep
from rayramid.pipelines.stages import Work, score_work, shots_work
from rayramid.pipelines.worker import work
from rayramid.platform.training.vae.spec import VAESpec

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
    plans.write_plan(root, items.job, plans.cut(items.items, items.largest, 1), generation=0)
    for shard in plans.read_plans(root, items.job):
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
        do(str(root), score_work(spec, read_clips(str(root), Keep()).kept))


@pytest.fixture(scope="session")
def clip_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight videos of 33 frames, 48x48, and two images; some are held out."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(8):
        write_mp4(folder / "videos" / f"wave-{number}.mp4", wave(number), 24.0, crf=6)
    for number in range(2):
        Image.fromarray(wave(100 + number, frames=1)[0]).save(folder / "videos" / f"still-{number}.png")
    cut_clips(folder / "data", folder / "videos", score=True)
    return str(folder / "data")


@pytest.fixture
def vae_spec(clip_root: str, tmp_path: Path) -> Callable[..., VAESpec]:
    """A run on `clip_root`; keyword arguments replace fields, `phase` those of its phase."""

    def build(phase: dict[str, object] | None = None, **fields: object) -> VAESpec:
        one = {"name": "only", "data": [clip_root], "steps": 4, "learning_rate": 1e-3, "size": "32x32"}
        one |= {"short_side": 40, "clips_per_step": 2, "image_share": 0.25, "frames": 17}
        return VAESpec.model_validate(
            {
                "kind": "vae",
                "output": str(tmp_path / "run"),
                "model": TINY,
                "phases": [one | (phase or {})],
                "losses": {"perceptual": {"weight": 0}, "kl": 1e-4, "reconstruction": {"weight": 1}},
                "precision": "float32",
                "ema": 0.9,
                "checkpoints": {"every": 2, "keep_last": 10},
                "validation": {"every": 2, "clips": 4},
                "log_every": 1,
                "decode": {"readers": 1},
            }
            | fields
        )

    return build


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
