"""Workers and drivers killed at random moments, and started again by the same command: the run is the same."""

import contextlib
import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from ray_nodes import wait_until

from rayramid.models import storage
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.loop import run
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from commands import command, last_step, lines
from processes import train_in_processes

ALONE = Ranks(1, 0, torch.device("cpu"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def newest_weights(output):
    """SHA-256 of every file of tensors of the newest checkpoint: weights, optimiser state and average."""
    folder, newest = checkpoints.find(output)
    files = [name for name in newest.files if name.endswith(".distcp")]
    read = {name: storage.read_bytes(storage.join(folder, newest.data, name)) for name in files}
    return newest.step, {name: hashlib.sha256(data).hexdigest() for name, data in read.items()}


def told(output):
    return [(line["step"], line["loss"], line["stages"], line["visits"]) for line in lines(output)]


def workers_since(address, moment):
    """Ray Train's workers that began later: they work in a folder of their own, and know their cluster."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            theirs = process.cwd().endswith("/artifacts/ray") and process.environ().get("RAY_ADDRESS") == address
            if theirs and process.create_time() > moment:
                found.append(process)
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("world", [1, 2])
def test_killed_at_random_moments_a_run_ends_as_if_undisturbed(spec, tmp_path, ray_cluster, world, seed):
    fields = {"phase": {"steps": 80}, "checkpoints": {"every": 3, "keep_last": 2}, "workers": {"count": world}}
    undisturbed, killed = (spec(output=str(tmp_path / name), **fields) for name in ("undisturbed", "killed"))
    chance = random.Random(f"{world} {seed}")
    victims = ["worker", "driver"]
    chance.shuffle(victims)
    moments = [chance.randrange(2, 25), chance.randrange(35, 60)]

    for starts in (1, 2):
        began = time.time()
        with command(killed, tmp_path, "--address", ray_cluster) as driver:
            while victims:
                wait_until(lambda: last_step(killed.output) >= moments[0])
                time.sleep(chance.random() / 2)
                moments.pop(0)
                if victims.pop(0) == "driver":
                    driver.kill()
                    break
                chance.choice(workers_since(ray_cluster, began)).kill()
            assert driver.wait(900) == (-signal.SIGKILL if starts == 1 else 0)
    assert "started again" in (tmp_path / "err.txt").read_text()

    if world == 1:
        torch.set_num_threads(1)
        run(settle(undisturbed), ALONE, lambda step, record: None)
    else:
        (tmp_path / "meetings").mkdir()
        assert train_in_processes(settle(undisturbed), world, tmp_path / "meetings") == [0] * world
    assert told(killed.output) == told(undisturbed.output)
    assert newest_weights(killed.output) == newest_weights(undisturbed.output)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_a_run_saves_its_newest_step_and_says_how_to_go_on(spec, tmp_path, number, code):
    """Ctrl-C as in a terminal, where every process of the local Ray gets it too; SIGTERM as from `kill`."""
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # No checkpoint would be due before the end.
    fields = {"phase": {"steps": 120}, "checkpoints": {"every": 120}}
    undisturbed, stopped = (spec(output=str(tmp_path / name), **fields) for name in ("undisturbed", "stopped"))
    with command(stopped, tmp_path, environment=alone) as driver:
        wait_until(lambda: last_step(stopped.output) >= 3)
        (os.killpg if number == signal.SIGINT else os.kill)(driver.pid, number)
        assert driver.wait(600) == code
    (saved,) = checkpoints.committed(storage.join(stopped.output, "checkpoints"))
    assert saved.step == last_step(stopped.output) < 120
    told_last = (tmp_path / "err.txt").read_text().splitlines()[-2:]
    assert told_last == [
        f"step {saved.step} is saved",
        "interrupted; the same command goes on where this one stopped",
    ]
    with command(stopped, tmp_path, environment=alone) as driver:
        assert driver.wait(900) == 0
    for name, place in stopped.places.items():
        assert all(f"{name:<11} {place}" in (tmp_path / file).read_text() for file in ("out.txt", "err.txt"))
        assert Path(place).exists()
    torch.set_num_threads(1)
    run(settle(undisturbed), ALONE, lambda step, record: None)
    assert told(stopped.output) == told(undisturbed.output)
    assert newest_weights(stopped.output) == newest_weights(undisturbed.output)


def test_interrupted_twice_a_run_ends_at_once(spec, tmp_path):
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    stopped = spec(phase={"steps": 10_000}, checkpoints={"every": 10_000})
    with command(stopped, tmp_path, environment=alone) as driver:
        wait_until(lambda: last_step(stopped.output) >= 3)
        driver.send_signal(signal.SIGINT)
        wait_until(lambda: "once more stops at once" in (tmp_path / "err.txt").read_text())
        driver.send_signal(signal.SIGINT)
        assert driver.wait(60) == 130


def test_a_worker_that_dies_too_often_ends_the_run_in_one_line(spec, tmp_path, ray_cluster):
    fields = {"phase": {"steps": 10_000}, "checkpoints": {"every": 3}, "workers": {"restarts": 0}}
    fragile = spec(**fields)
    began = time.time()
    with command(fragile, tmp_path, "--address", ray_cluster) as driver:
        wait_until(lambda: last_step(fragile.output) >= 7)
        (worker,) = workers_since(ray_cluster, began)
        worker.kill()
        assert driver.wait(600) == 3
    (line,) = (line for line in (tmp_path / "err.txt").read_text().splitlines() if line.startswith("error: "))
    assert line.startswith("error: worker 0 died, after 0 restarts (workers.restarts): The actor is dead because")
    assert line.endswith(" …; the same command goes on from the newest checkpoint")


def test_interrupted_while_it_waits_for_machines_a_run_ends(spec, tmp_path, ray_cluster):
    waiting = spec(workers={"count": 64})
    with command(waiting, tmp_path, "--address", ray_cluster) as driver:
        wait_until(lambda: "waiting for more" in (tmp_path / "err.txt").read_text())
        driver.send_signal(signal.SIGINT)
        assert driver.wait(120) == 130
    assert "no step is saved yet" in (tmp_path / "err.txt").read_text()
