"""A latent dataset of moving blobs, runs on it, and datasets that are harmed or grow."""

from collections.abc import Callable
from pathlib import Path

import pytest
from latent_dataset import write_dataset

from rayramid.models.tiny import write_tiny_text
from rayramid.pipelines import manifest
from rayramid.platform.training.spec.train import TrainSpec


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six videos of three latents and six images, 64x64 pixels; one of each is held out."""
    root = tmp_path_factory.mktemp("data") / "blobs"
    write_dataset(root, ((8, 8, 3), (8, 8, 1)))
    write_tiny_text(root / "models" / "text")
    return str(root)


@pytest.fixture
def spec(dataset: str, tmp_path: Path) -> Callable[..., TrainSpec]:
    """A run of the tiny preset on `dataset`; keyword arguments replace fields, `phase` those of its phase."""

    def build(phase: dict[str, object] | None = None, **fields: object) -> TrainSpec:
        one = {"name": "only", "data": [dataset], "steps": 6, "learning_rate": 1e-3, "tokens_per_bin": 200}
        return TrainSpec.model_validate(
            {
                "kind": "train",
                "output": str(tmp_path / "run"),
                "model": {"preset": "tiny"},
                "phases": [one | {"bins_per_step": 2} | (phase or {})],
                "precision": "float32",
                "ema": 0.9,
                "checkpoints": {"every": 2, "keep_last": 10},
                "validation": {"every": 3, "clips": 4},
                "log_every": 1,
            }
            | fields
        )

    return build


@pytest.fixture
def fresh_dataset(tmp_path: Path) -> str:
    """Six videos of three latents, one held out, for a test to harm."""
    return write_dataset(tmp_path / "fresh")


@pytest.fixture
def other_dataset(tmp_path: Path) -> str:
    """A dataset whose latents come from another VAE."""
    return write_dataset(tmp_path / "other", seed=1)


@pytest.fixture
def growing_dataset(tmp_path: Path) -> tuple[str, Callable[[], None]]:
    """A dataset, and what makes a new version of it without its first clip."""
    root = write_dataset(tmp_path / "growing")

    def grow() -> None:
        old = manifest.read(root)
        facts = {name: old[name] for name in ("vae", "text", "statistics")}
        manifest.publish(root, facts, manifest.read_index(root, old).slice(1), manifest.read_text_index(root, old))

    return root, grow
