"""`rayramid weights` and `rayramid plan` as a user meets them, on S3: real processes, their output and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from released import STEM, write_release

from rayramid.models import storage
from rayramid.models.importers.published import read_published


def rayramid(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rayramid.platform.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def release(tmp_path: Path, s3_bucket: str) -> str:
    """A miniature miniFLUX release on S3."""
    folder = tmp_path / "release"
    write_release(folder)
    storage.sync_up(folder, f"{s3_bucket}/release")
    return f"{s3_bucket}/release"


def test_weights_go_in_and_out_on_s3(release: str, s3_bucket: str) -> None:
    imported = rayramid("weights", "import", release, f"{s3_bucket}/model")
    assert imported.returncode == 0, imported.stderr
    assert "640x384, 121 frames, official" in imported.stdout
    shown = json.loads(rayramid("weights", "inspect", f"{s3_bucket}/model", "--json").stdout)
    assert shown["card"]["text_dim"] == 64
    assert [file["path"] for file in shown["files"]] == [
        "dit/model.safetensors", "text/clip_l/model.safetensors", "text/t5/model.safetensors", "vae/model.safetensors"
    ]  # fmt: skip
    exported = rayramid("weights", "export", f"{s3_bucket}/model", f"{s3_bucket}/again")
    assert exported.returncode == 0, exported.stderr
    for part in ("diffusion_transformer_384p", "causal_video_vae"):
        _, ours = read_published(f"{s3_bucket}/again/{part}")
        _, theirs = read_published(f"{release}/{part}")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_damaged_release_is_one_line(release: str, s3_bucket: str) -> None:
    shard = f"{release}/diffusion_transformer_384p/{STEM}-00002-of-00002.bin"
    storage.write_atomic(shard, storage.read_bytes(shard)[:-100])
    failed = rayramid("weights", "import", release, f"{s3_bucket}/model")
    assert failed.returncode == 2
    assert failed.stderr == f"error: {shard}: not a whole weight file (its end is missing); fetch it again\n"
    assert not storage.exists(f"{s3_bucket}/model/rayramid.json")
