"""`rayramid serve` as a process that is told to end while it makes a video."""

import os
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from rayramid.serve.store import Store


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_a_server_told_to_end_leaves_its_videos_at_a_units_edge_and_no_process(model_folder, tmp_path, how):
    store, spec = Store(str(tmp_path / "store")), tmp_path / "serve.yaml"
    spec.write_text(f"kind: serve\nmodel: {model_folder}\nstore: {store.url}\nport: 0\nkeys: off\n")
    with subprocess.Popen(
        [sys.executable, "-m", "rayramid.platform.cli", "serve", str(spec)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A terminal's Ctrl-C goes to all processes of the group, Ray's among them.
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    ) as server:
        url = next(line.split()[1] for line in server.stdout if line.startswith("at "))
        wanted = {"prompt": "long", "seconds": 60, "steps": 20}
        video = httpx.post(f"{url}/videos", json=wanted, timeout=60).json()["id"]
        while store.units(video) < 2:
            time.sleep(0.05)
        others = psutil.Process(server.pid).children(recursive=True)
        assert others
        if how == "Ctrl-C":
            os.killpg(server.pid, signal.SIGINT)
        else:
            server.terminate()
        said = server.stdout.read()
    assert server.returncode == {"Ctrl-C": 130, "SIGTERM": 143}[how]
    assert "every video in the making is left at its next unit" in said
    assert said.splitlines()[-1] == "interrupted; the same command goes on where this one stopped"
    control = store.control(video)
    assert (control.attempts, control.paused, control.ended) == (1, frozenset({1}), False)
    assert psutil.wait_procs(others, timeout=60)[1] == []
