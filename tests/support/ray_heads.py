"""A Ray cluster with a job server and a token, as `infra/clusters/local.sh` starts it for a user."""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

SCRIPT = Path(__file__).parents[2] / "infra" / "clusters" / "local.sh"
TRIES = 4


@dataclass(frozen=True)
class Head:
    """A running cluster.

    Attributes:
        address: of its job server.
        folder: holds its token and its logs.
        token: what it wants to be shown.
    """

    address: str
    folder: Path
    token: str

    def processes(self) -> list[psutil.Process]:
        """All of the cluster's."""
        first = [psutil.Process(int(pid)) for pid in (self.folder / "pids").read_text().split()]
        return [*first, *(child for process in first for child in process.children(recursive=True))]


@contextmanager
def ray_head(environment: Mapping[str, str]) -> Iterator[Head]:
    """A cluster of one node that has `environment`; ended with the context."""
    folder = Path(tempfile.mkdtemp(prefix="rj-", dir="/tmp"))
    port = free_port()
    surroundings = {
        **os.environ,
        # The job's entry point and Ray's installer of wheels are found on the PATH.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAYRAMID_CLUSTER": str(folder),
        "RAY_PORT": str(free_port()),
        "CLIENT_PORT": str(free_port()),
        "DASHBOARD_PORT": str(port),
        **environment,
    }
    # Ray gives a node 30 s to come up, which are too few for a machine that is busy.
    for _ in range(TRIES):
        started = subprocess.run([SCRIPT, "start"], env=surroundings, capture_output=True, text=True, check=False)
        if started.returncode == 0:
            break
        subprocess.run([SCRIPT, "stop"], env=surroundings, check=True)
    assert started.returncode == 0, started.stderr
    head = Head(f"http://127.0.0.1:{port}", folder, (folder / "token").read_text())
    processes = head.processes()
    try:
        yield head
    finally:
        subprocess.run([SCRIPT, "stop"], env=surroundings, check=True)
        _, alive = psutil.wait_procs(processes, timeout=30)
        shutil.rmtree(folder, ignore_errors=True)
        assert not alive


def free_port() -> int:
    """A port that nothing listens on now, and that neither Ray's workers nor outgoing connections take."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
