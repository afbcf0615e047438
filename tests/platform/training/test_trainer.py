"""Training through Ray Train: workers die and come back, beside videos and other clusters."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import ray
import torch

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.loop import run
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle, train

ALONE = Ranks(1, 0, torch.device("cpu"))


def losses(output):
    return [(r["step"], r["loss"], r["stages"]) for r in read_metrics(str(output)) if "loss" in r]


def newest_weights(output):
    """SHA-256 of every file that DCP wrote for the newest checkpoint: weights, optimiser state and average."""
    folder = storage.join(str(output), "checkpoints")
    data = Path(storage.join(folder, checkpoints.latest(folder).data))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in data.glob("*.distcp")}


def training_workers(address):
    """Ray Train's workers on the cluster at `address`: they work in a folder of their own, and know their cluster."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd().endswith("/artifacts/ray") and process.environ().get("RAY_ADDRESS") == address:
                found.append(process)
    return found


def test_a_killed_worker_comes_back_and_the_run_is_the_same(spec, tmp_path, ray_cluster):
    phase = {"steps": 40}
    both = {"phase": phase, "checkpoints": {"every": 4}, "validation": {"every": 40}}
    undisturbed = settle(spec(output=str(tmp_path / "undisturbed"), **both))
    torch.set_num_threads(1)
    run(undisturbed, ALONE, lambda step, record: None)

    killed, seen = [], []

    def kill_once(step, total, loss):
        seen.append((step, total))
        if step >= 4 and not killed:
            killed.extend(training_workers(ray_cluster))
            for process in killed:
                process.kill()

    # Beside it, videos of a few denoising steps, on CPUs that the worker has already.
    videos = {"prompts": ["a picture"], "every": 20}
    few = {"first_steps": 1, "later_steps": 1, "guidance": 1.0, "video_guidance": 1.0}
    result = train(spec(output=str(tmp_path / "killed"), **both, videos=videos, sampling=few), kill_once)
    assert len(killed) == 1
    assert losses(tmp_path / "killed") == losses(undisturbed.output)
    assert newest_weights(tmp_path / "killed") == newest_weights(undisturbed.output)
    assert seen[-1] == (40, 40)
    assert (result.steps, result.final_loss) == (40, losses(undisturbed.output)[-1][1])
    assert storage.exists(storage.join(result.folder, "rayramid.json"))
    assert result.videos_failed == {}
    sampled = [r["step"] for r in read_metrics(str(tmp_path / "killed")) if "videos" in r]
    assert sampled[-1] == 40
    assert len(sampled) == len(set(sampled))
    assert all((tmp_path / "killed" / "validation" / f"step-{s:08d}" / "prompt-0.mp4").exists() for s in sampled)


@pytest.mark.slow
def test_another_ray_on_the_host_confuses_nobody(spec, tmp_path, ray_cluster):
    temp = tempfile.mkdtemp(prefix="ro-", dir="/tmp")
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_CLUSTER, temp], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline().strip() == "up"
        # Even a driver that does not say which cluster it means.
        os.environ.pop("RAY_ADDRESS")
        result = train(spec(workers={"count": 2}))
    finally:
        os.environ["RAY_ADDRESS"] = ray_cluster
        other.communicate("end\n")
        shutil.rmtree(temp, ignore_errors=True)
    assert result.steps == 6
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    assert not [log for log in logs.glob("worker-*") if "multiple active Ray instances" in log.read_text()]


OTHER_CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=1, object_store_memory=100 * 1024**2, include_dashboard=False, _temp_dir=sys.argv[1])
print("up", flush=True)
sys.stdin.readline()
ray.shutdown()
"""


@pytest.mark.slow
def test_a_mistake_that_a_worker_meets_is_one_line(spec, tmp_path, ray_cluster, growing_dataset):
    root, _ = growing_dataset
    file = next(Path(root).glob("latents/*/part.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 4 : 3 * len(data) // 4] = bytes(len(data) // 2)
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"part\.parquet: not the bytes that version 1 was made with") as refused:
        train(spec(phase={"data": [root]}, workers={"count": 1, "restarts": 0}))
    assert "\n" not in str(refused.value)
