"""Jobs and stores for tests without a model, and a tiny seeded model folder."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rayramid.models.card import ModelCard
from rayramid.serve.job import Job, Model, accept
from rayramid.serve.spec import Limits
from rayramid.serve.store import Store
from rayramid.serve.wire import CreateVideo


@pytest.fixture
def card() -> ModelCard:
    # Sizes are multiples of 64 pixels: 8 (VAE) x 2 (patch) x 4 (three levels).
    return ModelCard(
        preset="tiny",
        dit={"patch": 2, "frames_per_unit": 1},
        pyramid={"levels": 3},
        fps=8.0,
        width=64,
        height=64,
        frames=17,
        steps=((1, 1, 1), (1, 1, 1)),
        guidance=3.0,
        video_guidance=2.0,
        negative_prompt="blurry",
    )


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A whole checkpoint folder: seeded DiT of 30 k weights, PCA codec of drifting colours, tiny text encoders."""
    import torch

    from rayramid.models.checkpoint import save_model
    from rayramid.models.dit.config import DiTConfig
    from rayramid.models.dit.model import DiT
    from rayramid.models.tiny import write_tiny_text
    from rayramid.models.vae.pca import pca_vae

    config = DiTConfig(
        heads=2, head_dim=16, double_blocks=1, single_blocks=1, text_dim=64, pooled_dim=64, rope_axes=(4, 6, 6)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dit = DiT(config)
        # A fresh model's last layer is zero: without this, all videos would be nothing but noise.
        for parameter in dit.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    card = ModelCard(
        preset="tiny",
        dit=dataclasses.asdict(config),
        pyramid={"levels": 3},
        fps=8.0,
        width=64,
        height=64,
        frames=17,
        steps=((2, 1, 1), (1, 1, 1)),
        guidance=3.0,
        video_guidance=2.0,
    )
    folder = tmp_path_factory.mktemp("model")
    write_tiny_text(folder / "text-source")
    save_model(str(folder / "model"), card, dit, pca_vae(drifting_colours()), str(folder / "text-source"))
    return str(folder / "model")


def drifting_colours() -> Iterator[np.ndarray]:
    """Clips [17, 64, 64, 3] of smooth colours that drift at different speeds."""
    t, y, x = np.meshgrid(np.arange(17), np.arange(64), np.arange(64), indexing="ij")
    for clip in range(4):
        angles = [(x * (1 + c) + y * (2 - c) + t * (clip - 1.5) * 3) / 20 for c in range(3)]
        yield np.stack([127.5 + 120 * np.sin(angle + clip) for angle in angles], axis=-1).astype(np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def s3_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store in a bucket of moto's server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="videos")
    # All of moto's servers share their buckets.
    yield Store(f"s3://videos/{tmp_path.name}")
    server.stop()


@pytest.fixture
def new_job(card: ModelCard) -> Callable[..., Job]:
    """Makes jobs of the card's model."""

    def make(prompt: str = "a cat", owner: str = "me", **fields: object) -> Job:
        request = CreateVideo(prompt=prompt, **fields)
        return accept(request, Model.of(card, None), Limits(), owner=owner, image=False)

    return make
