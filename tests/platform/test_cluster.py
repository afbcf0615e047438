"""The local cluster of a command leaves nothing behind, however the command ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PROGRAM = """
import sys, time
import ray
from rayramid.platform.cluster import connect

with connect() as cluster:
    ray.get(ray.remote(num_cpus=0.1)(lambda: 1).remote())
    print(cluster.logs, flush=True)
    time.sleep(100)
"""


def started(program: str) -> tuple[subprocess.Popen[str], Path]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        # Shells start background commands with this signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    temp = re.search(r"/\S*?rr-\w+", process.stdout.readline())
    assert temp is not None
    return process, Path(temp[0])


def wait_until(condition: object, seconds: float = 20) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.2)
    return bool(condition())


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_no_processes_and_no_files(ending: signal.Signals) -> None:
    process, temp = started(PROGRAM)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 4
    process.send_signal(ending)
    process.wait(timeout=30)
    assert wait_until(lambda: not any(member.is_running() for member in family))
    assert not temp.exists()


def test_a_second_cluster_works_beside_the_first(ray_cluster: str) -> None:
    process, _ = started(PROGRAM)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    import ray

    assert ray.get(ray.remote(num_cpus=0.1)(lambda: 2).remote()) == 2
