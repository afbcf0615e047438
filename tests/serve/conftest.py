"""Jobs and stores for tests without a model, and a tiny seeded model folder."""

from collections.abc import Callable, Iterator
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
