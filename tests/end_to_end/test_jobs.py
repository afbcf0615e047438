"""A data and a training spec as Ray jobs, on a cluster that runs beside the test."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rayramid.models.errors import UserError
from rayramid.pipelines.dataset import LatentDataset
from rayramid.platform.jobs import submit
from rayramid.platform.spec import load_spec

SPECS = Path(__file__).parents[2] / "infra" / "specs"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def job_server() -> Iterator[str]:
    """The address of a Ray head with a dashboard, in processes of its own."""
    temp = Path(tempfile.mkdtemp(prefix="rj-", dir="/tmp"))
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # The job's entry point and Ray's installer of wheels are found on the PATH.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    head = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"),
            *(f"--port={free_port()}", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
            *(f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"),
            *("--object-store-memory=200000000", f"--temp-dir={temp}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while not answers(f"{address}/api/version"):
        assert head.poll() is None, "the head ended"
        assert time.monotonic() < deadline, "the job server did not come up"
        time.sleep(0.5)
    yield address
    # The head ends its services one by one and slowly; jobs' workers are grandchildren.
    family = psutil.Process(head.pid).children(recursive=True)
    head.terminate()
    _, alive = psutil.wait_procs(family, timeout=15)
    for process in alive:
        process.kill()
    head.wait(timeout=60)
    shutil.rmtree(temp, ignore_errors=True)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def test_an_address_where_nothing_answers_is_one_line(tmp_path: Path) -> None:
    spec = load_spec(SPECS / "data-local.yaml", [f"root={tmp_path}"])
    with pytest.raises(UserError, match="no Ray job server answers at http://127"):
        submit(spec, f"http://127.0.0.1:{free_port()}")


def test_a_kind_that_is_no_job_is_refused() -> None:
    with pytest.raises(UserError, match="kind 'serve' can't be submitted"):
        submit(load_spec(SPECS / "serve-local.yaml"), "http://127.0.0.1:1")


@pytest.mark.slow
def test_a_data_spec_and_then_a_training_spec_run_as_jobs(job_server: str, tmp_path: Path) -> None:
    root, output = tmp_path / "data", tmp_path / "train"
    log: list[str] = []
    data = load_spec(
        SPECS / "data-local.yaml",
        [
            f"root={root}",
            "sources=[{sprites: {clips: 6, frames: 25, width: 64, height: 64}}]",
            "encode.sizes=[64x64]",
            "keep={}",
            "shots.min_s=0.5",
            "shots.detector=none",
        ],
    )
    done = submit(data, job_server, on_log=log.append)
    assert done.status == "SUCCEEDED", "".join(log)
    assert "encode" in "".join(log)
    dataset = LatentDataset.open(str(root))
    assert len(dataset) == 6

    log.clear()
    train = load_spec(
        SPECS / "train-local.yaml",
        [f"output={output}", f"phases.0.data=[{root}]", "phases.0.steps=4", "workers.count=1"],
    )
    done = submit(train, job_server, on_log=log.append)
    assert done.status == "SUCCEEDED", "".join(log)
    assert (output / "model" / "rayramid.json").is_file()

    again = submit(train, job_server, on_log=log.append)
    assert again.id == f"{done.id}-2"
    assert again.status == "SUCCEEDED"
