"""Storage that is full or fails, and writers that die: the checkpoint before stays, and the run ends the same."""

import hashlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from s3_servers import Proxy

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.stores import s3
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.loop import run
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle

sys.path.insert(0, str(Path(__file__).parent))
from processes import kill, start, train_in_processes

ALONE = Ranks(1, 0, torch.device("cpu"))
CAN_MOUNT = os.geteuid() == 0 and shutil.which("mount") is not None


pytestmark = pytest.mark.usefixtures("one_thread")


def silent(step, record):
    pass


def told(output):
    return [(r["step"], r["loss"]) for r in read_metrics(output) if "loss" in r]


def steps_saved(output):
    return [c.step for c in checkpoints.committed(storage.join(output, "checkpoints"))]


def final_tensors(output):
    """SHA-256 of every file of tensors of the newest checkpoint."""
    folder, newest = checkpoints.find(output)
    files = [name for name in newest.files if name.endswith(".distcp")]
    read = {name: storage.read_bytes(storage.join(folder, newest.data, name)) for name in files}
    return newest.step, {name: hashlib.sha256(data).hexdigest() for name, data in read.items()}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and what changes its size in MiB."""
    if not CAN_MOUNT:
        pytest.skip("mounts a file system, which needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}m", disk], check=True)
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_keeps_the_checkpoint_before_and_the_run_goes_on_when_there_is_room(
    spec, tmp_path, small_disk, caplog
):
    phase = {"steps": 8}
    undisturbed = settle(spec(output=str(tmp_path / "undisturbed"), phase=phase))
    run(undisturbed, ALONE, silent)
    largest = max(sum(c.files.values()) for c in checkpoints.committed(str(tmp_path / "undisturbed/checkpoints")))

    disk, resize = small_disk
    # Room for one checkpoint and a half; the one before stays until a newer one is there.
    resize(max(1, round(1.5 * largest / 2**20)))
    cramped = settle(spec(output=str(disk / "run"), phase=phase, checkpoints={"every": 2, "failures": 1}))
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="the disk is full; 2 checkpoints in a row"):
        run(cramped, ALONE, silent)
    assert steps_saved(cramped.output) == [2]
    warned = [r.getMessage() for r in caplog.records if "no checkpoint of step" in r.getMessage()]
    assert [line.split()[4] for line in warned] == ["4:", "6:"]
    assert all("\n" not in line for line in warned)

    resize(1024)
    run(cramped, ALONE, silent)
    assert told(cramped.output) == told(undisturbed.output)
    assert final_tensors(cramped.output) == final_tensors(undisturbed.output)


@pytest.mark.slow
def test_a_server_that_fails_for_a_while_costs_a_checkpoint_and_nothing_else(
    spec, s3_server, s3_bucket, monkeypatch, caplog
):
    phase = {"steps": 8}
    undisturbed = settle(spec(output=storage.join(s3_bucket, "undisturbed"), phase=phase))
    run(undisturbed, ALONE, silent)

    down = threading.Event()
    proxy = Proxy(s3_server, lambda: "503" if down.is_set() else "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    disturbed = settle(spec(output=storage.join(s3_bucket, "disturbed"), phase=phase))

    def outage(step, record):
        """From just before the checkpoint of step 4 until it has failed."""
        if step == 4:
            wait_until(lambda: steps_saved(disturbed.output) == [2])
            down.set()
        if step == 5:
            wait_until(lambda: any("no checkpoint of step 4: " in r.getMessage() for r in caplog.records))
            down.clear()

    with caplog.at_level(logging.WARNING):
        run(disturbed, ALONE, outage)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    proxy.close()
    (line,) = (r.getMessage() for r in caplog.records if "no checkpoint" in r.getMessage())
    assert "the S3 server answers 503 again and again" in line
    assert "\n" not in line
    assert steps_saved(disturbed.output) == [2, 6, 8]
    assert told(disturbed.output) == told(undisturbed.output)
    assert final_tensors(disturbed.output) == final_tensors(undisturbed.output)


class Gate(Proxy):
    """Forwards everything but requests for what is named, which it keeps waiting for ever."""

    def __init__(self, target, named):
        self.named, self.held, self.waiting = named, threading.Event(), []
        super().__init__(target, lambda: "")

    def _serve(self, client):
        line = client.recv(1 << 12, socket.MSG_PEEK).split(b"\r\n")[0].decode()
        if all(word in line for word in self.named):
            self.waiting.append(client)
            self.held.set()
        else:
            super()._serve(client)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("file", ["_0.distcp", ".metadata"])
def test_killed_while_it_uploads_a_checkpoint_a_run_goes_on_from_the_one_before(
    spec, tmp_path, s3_server, s3_bucket, monkeypatch, world, file
):
    (tmp_path / "meetings").mkdir()
    undisturbed, killed = (settle(spec(output=storage.join(s3_bucket, name))) for name in ("undisturbed", "killed"))
    gate = Gate(s3_server, ("PUT", "step-00000004.", file))
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
    processes = start(killed, world, tmp_path / "meetings")
    assert gate.held.wait(600)
    # Training goes on meanwhile; the line of step 6 is shown before the next checkpoint waits for this one.
    wait_until(lambda: told(killed.output)[-1][0] == 6)
    kill(processes)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    assert steps_saved(killed.output) == [2]
    if world == 1:
        run(killed, ALONE, silent)
        run(undisturbed, ALONE, silent)
    else:
        assert train_in_processes(killed, world, tmp_path / "meetings") == [0] * world
        assert train_in_processes(undisturbed, world, tmp_path / "meetings") == [0] * world
    assert steps_saved(killed.output) == [2, 4, 6]
    assert told(killed.output) == told(undisturbed.output)
    assert final_tensors(killed.output) == final_tensors(undisturbed.output)
    folder = storage.join(killed.output, "checkpoints")
    left = {storage.relative(folder, file).split("/")[0] for file in storage.list_files(folder, ".distcp")}
    assert len(left) == 3, "nothing of the killed attempt"


def wait_until(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
