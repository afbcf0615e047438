"""Clips of drifting waves and two images, and runs of a VAE of a few thousand weights on them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from rayramid.models.media.write import write_mp4
from rayramid.platform.training.vae.spec import VAESpec

sys.path.insert(0, str(Path(__file__).parent))
from clips_of_waves import TINY, cut_clips, wave


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
