"""Training through Ray Train: workers die and come back, drivers die and are started again."""

import contextlib
import hashlib
from pathlib import Path

import psutil
import torch

from rayramid.models import storage
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


def training_workers(output):
    """The workers of the run at `output`: Ray Train gives them a working directory below it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(output):
                found.append(process)
    return found


def test_a_killed_worker_comes_back_and_the_run_is_the_same(spec, tmp_path, ray_cluster):
    phase = {"steps": 14}
    undisturbed = settle(spec(output=str(tmp_path / "undisturbed"), phase=phase, checkpoints={"every": 4}))
    torch.set_num_threads(1)
    run(undisturbed, ALONE, lambda step, record: None)

    killed, seen = [], []

    def kill_once(step, total, loss):
        seen.append((step, total))
        if step >= 4 and not killed:
            killed.extend(training_workers(tmp_path / "killed"))
            for process in killed:
                process.kill()

    result = train(spec(output=str(tmp_path / "killed"), phase=phase, checkpoints={"every": 4}), kill_once)
    assert len(killed) == 1
    assert losses(tmp_path / "killed") == losses(undisturbed.output)
    assert newest_weights(tmp_path / "killed") == newest_weights(undisturbed.output)
    assert seen[-1] == (14, 14)
    assert (result.steps, result.final_loss) == (14, losses(undisturbed.output)[-1][1])
    assert storage.exists(storage.join(result.folder, "rayramid.json"))
