"""A Ray cluster of several nodes on this host, which join, are drained and are killed as machines are."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# The command beside the interpreter that runs the tests.
RAY = str(Path(sys.executable).with_name("ray"))


class Nodes:
    """Nodes of one CPU each; the first is the head.

    Attributes:
        address: of the cluster, for processes with `ENVIRONMENT`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("--head", "--port=0", f"--temp-dir={folder}", "--include-dashboard=false")
        noted = folder / "ray_current_cluster"
        wait_until(noted.exists)
        self.address = noted.read_text().strip()
        self.ids: list[str] = []
        self._wait_for_new()

    def add(self) -> int:
        """A further node joins; returns its number."""
        self._start(f"--address={self.address}")
        self._wait_for_new()
        return len(self._processes) - 1

    def kill(self, number: int) -> None:
        """All processes of a node die at once."""
        os.killpg(self._processes[number].pid, signal.SIGKILL)
        self._processes[number].wait()

    def drain(self, number: int, seconds: int) -> None:
        """A node is told that it will be taken away in so many seconds."""
        options = ["--node-id", self.ids[number], "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        options += ["--reason-message", "spot", "--deadline-remaining-seconds", str(seconds)]
        done = subprocess.run(
            [RAY, "drain-node", "--address", self.address, *options], env=ENVIRONMENT, check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()

    def alive(self) -> list[str]:
        """Ids of the nodes that the cluster believes to live."""
        asked = subprocess.run(
            [sys.executable, "-c", ALIVE, self.address], env=ENVIRONMENT, check=True, capture_output=True, text=True
        )
        return asked.stdout.split()

    def end(self) -> None:
        """Kills what is left."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _start(self, *options: str) -> None:
        command = [RAY, "start", "--num-cpus=1", f"--object-store-memory={100 * 2**20}", "--block", *options]
        with (self._folder / f"node-{len(self._processes)}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
            )

    def _wait_for_new(self) -> None:
        def joined() -> bool:
            new = [node for node in self.alive() if node not in self.ids]
            self.ids += new
            return bool(new)

        wait_until(joined)


ALIVE = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print(*(node["NodeID"] for node in ray.nodes() if node["Alive"]))
"""


@contextmanager
def ray_nodes() -> Iterator[Nodes]:
    """A cluster of one node for as long as the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))
    nodes = None
    try:
        nodes = Nodes(folder)
        yield nodes
    finally:
        if nodes is not None:
            nodes.end()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: Callable[[], object], seconds: float = 600) -> None:
    """Waits for a condition; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.1)
