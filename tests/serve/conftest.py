"""Jobs and stores for tests without a model, and a tiny seeded model folder."""

from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def s3_store(s3_bucket: str) -> Store:
    """A store in a bucket of moto's server."""
    return Store(s3_bucket)


@pytest.fixture
def new_job(card: ModelCard) -> Callable[..., Job]:
    """Makes jobs of the card's model."""

    def make(prompt: str = "a cat", owner: str = "me", **fields: object) -> Job:
        request = CreateVideo(prompt=prompt, **fields)
        return accept(request, Model.of(card, None), Limits(), owner=owner, image=False)

    return make
