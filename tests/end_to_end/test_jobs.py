"""Specs as Ray jobs, on a cluster with a token that runs beside the tests."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from latent_dataset import write_dataset
from ray_heads import SCRIPT, Head, free_port, ray_head

from rayramid.models.errors import UserError
from rayramid.models.tiny import write_tiny_text
from rayramid.pipelines.dataset import LatentDataset
from rayramid.platform.job_server import JobServer
from rayramid.platform.jobs import Driver, submit
from rayramid.platform.spec import load_spec

SPECS = Path(__file__).parents[2] / "infra" / "specs"
# The nodes hold a secret, as docs/clusters.md tells; a job's processes find it in their environment.
PLANTED = "planted-2f9c41d7"
SPRITES = [
    "sources=[{sprites: {clips: 6, frames: 25, width: 64, height: 64}}]",
    *("encode.sizes=[64x64]", "keep={}", "shots.min_s=0.5", "shots.detector=none"),
]


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """The cluster that other tests share is not meant here."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def head(alone: None) -> Iterator[Head]:
    with ray_head({"WANDB_API_KEY": PLANTED}) as started:
        yield started


@pytest.fixture
def server(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobServer]:
    """The cluster's job server; no secret is left anywhere by what is done with it."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    connected = JobServer(head.address)
    yield connected
    told = json.dumps([each.model_dump(mode="json") for each in connected._client.list_jobs()])
    commands = "\n".join(cmdline(process) for process in head.processes())
    for secret in (PLANTED, head.token):
        assert files_with(secret, head.folder) == []
        assert files_with(secret, tmp_path) == []
        assert secret not in told
        assert secret not in commands


def rayramid(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rayramid.platform.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def files_with(text: str, folder: Path) -> list[Path]:
    # The file of the token is where the cluster itself has it from.
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "token")
    return [path for path in files if text.encode() in path.read_bytes()]


def test_an_address_where_nothing_answers_is_one_line(tmp_path: Path) -> None:
    spec = load_spec(SPECS / "data-local.yaml", [f"root={tmp_path}"])
    with pytest.raises(UserError, match="no Ray job server answers at http://127"):
        submit(spec, f"http://127.0.0.1:{free_port()}")


def test_an_endpoint_is_no_job_and_the_refusal_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"kind 'serve' is no job.*rayramid serve SPEC --config"):
        submit(load_spec(SPECS / "serve-local.yaml"), "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("name", "value"), [("WANDB_API_KEY", "x"), ("HF_TOKEN", "x"), ("MLFLOW_TRACKING_URI", "https://me:x@host/mlflow")]
)
def test_a_secret_is_refused_as_a_jobs_variable(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"--env {name}: a secret would be shown by the job server") as error:
        submit(load_spec(SPECS / "data-local.yaml"), "http://127.0.0.1:1", environment={name: value})
    assert value not in str(error.value).replace("nodes, as", "")


def test_what_a_driver_asks_for_is_what_ray_is_told() -> None:
    assert Driver(1, 0, 2, {"loader": 0.5}).options() == {
        "entrypoint_num_cpus": 1,
        "entrypoint_num_gpus": None,
        "entrypoint_memory": 2 * 2**30,
        "entrypoint_resources": {"loader": 0.5},
    }


def test_another_token_is_refused_in_one_line(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token")
    refused = rayramid("jobs", "list", "--address", head.address)
    assert refused.returncode == 2
    assert "wants another token; put the cluster's into RAY_AUTH_TOKEN" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "another-token" not in refused.stderr


@pytest.mark.slow
def test_a_job_that_fails_by_the_users_mistake_is_shown_and_not_tried_again(server: JobServer, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    mistaken = load_spec(SPECS / "data-local.yaml", [f"root={tmp_path / 'data'}", f"sources=[{{folder: {empty}}}]"])
    log: list[str] = []
    job = submit(mistaken, server.address, retries=2, on_log=log.append, driver=Driver(cpus=0.5))
    assert (job.status, job.exit_code, job.kind) == ("FAILED", 2, "data"), "".join(log)
    assert job.output == str(tmp_path / "data")
    assert f"error: {empty}" in "".join(log)

    listed = rayramid("jobs", "list", "--json", "--address", server.address)
    assert [each["id"] for each in json.loads(listed.stdout)] == [job.id]
    assert server.job(job.id[:16]) == job
    followed = rayramid("jobs", "logs", job.id, "-f", "--address", server.address)
    assert (followed.returncode, followed.stdout) == (3, "".join(log))
    with pytest.raises(UserError, match="no job 'rayramid-eval'; 'rayramid jobs list' shows all"):
        server.job("rayramid-eval")


def test_a_folder_holds_one_local_cluster(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYRAMID_CLUSTER", str(head.folder))
    again = subprocess.run([SCRIPT, "start"], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr.splitlines()) == (
        2,
        [f"error: a cluster is in {head.folder}; stop it first, or name another folder by RAYRAMID_CLUSTER"],
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_running_job_is_found_again_stopped_and_goes_on(head: Head, server: JobServer, tmp_path: Path) -> None:
    root = tmp_path / "data"
    spec = load_spec(SPECS / "data-local.yaml", [f"root={root}", *SPRITES])
    held = load_spec(SPECS / "data-local.yaml", [f"root={root}", *SPRITES, "sources.0.sprites.clips=20000"])
    job = submit(held, server.address)
    while not (root / "_plan").exists():
        assert not server.job(job.id).has_ended, server.logs(job.id)
        time.sleep(0.2)
    assert submit(held, server.address).id == job.id
    assert rayramid("jobs", "stop", job.id, "--address", server.address).stdout == f"{job.id}: STOPPED\n"
    assert server.stop(job.id).status == "STOPPED"

    log: list[str] = []
    done = submit(spec, server.address, on_log=log.append)
    assert done.status == "SUCCEEDED", "".join(log)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_job_whose_driver_is_killed_is_started_again_and_goes_on(
    head: Head, server: JobServer, tmp_path: Path
) -> None:
    log: list[str] = []
    killed: list[int] = []

    def kill_once(text: str) -> None:
        log.append(text)
        if "shots" in text and not killed:
            drivers = [process for process in head.processes() if "rayramid.platform.cli" in cmdline(process)]
            for process in drivers:
                killed.append(process.pid)
                process.kill()

    root = tmp_path / "data"
    spec = load_spec(SPECS / "data-local.yaml", [f"root={root}", *SPRITES])
    job = submit(spec, server.address, retries=1, on_log=kill_once)
    assert killed
    assert "it is started again, and goes on from what was committed" in "".join(log)
    assert (job.id[-2:], job.status) == ("-2", "SUCCEEDED"), "".join(log)
    assert server.job(job.id[:-2]).status == "FAILED"
    assert len(LatentDataset.open(str(root))) == 6


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_data_spec_and_then_a_vae_spec_run_as_jobs(server: JobServer, tmp_path: Path) -> None:
    root = tmp_path / "data"
    log: list[str] = []
    data = load_spec(SPECS / "data-local.yaml", [f"root={root}", *SPRITES])
    done = submit(data, server.address, on_log=log.append)
    assert done.status == "SUCCEEDED", "".join(log)
    assert "encode" in "".join(log)
    assert len(LatentDataset.open(str(root))) == 6

    log.clear()
    sizes = ["phases.0.size=64x64", "phases.0.short_side=64", "validation={every: 2, clips: 2, frames: 17}"]
    vae = load_spec(
        SPECS / "vae-local.yaml",
        [f"output={tmp_path / 'vae'}", f"phases.0.data=[{root}]", "phases.0.steps=2", "workers.count=1", *sizes],
    )
    done = submit(vae, server.address, on_log=log.append)
    assert done.status == "SUCCEEDED", "".join(log)
    assert (tmp_path / "vae" / "vae").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_training_spec_runs_as_a_job_and_is_done_when_it_is_submitted_again(
    server: JobServer, tmp_path: Path
) -> None:
    root, output = tmp_path / "data", tmp_path / "train"
    write_dataset(root)
    write_tiny_text(root / "models" / "text")
    log: list[str] = []
    train = load_spec(
        SPECS / "train-local.yaml",
        [f"output={output}", f"phases.0.data=[{root}]", "phases.0.steps=4", "workers.count=1", "videos.prompts=[]"],
    )
    done = submit(train, server.address, on_log=log.append)
    assert done.status == "SUCCEEDED", "".join(log)
    assert (output / "model" / "rayramid.json").is_file()

    again = submit(train, server.address, on_log=log.append)
    assert (again.id, again.status) == (f"{done.id}-2", "SUCCEEDED")


JUDGED = ["prompts=1", "lengths=[17]", "curve={steps: [1], prompts: 1}", "images=1", "renders=1"]
SUITE = ["first=1", "seconds=0.5", "steps=1"]
CLIPS = "{source: {sprites: {clips: 2, width: 32, height: 32, frames: 16}}}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("eval-sprites", JUDGED),
        ("eval-suite", SUITE),
        ("eval-distances", [f"made={CLIPS}", f"reference={CLIPS}", "size=32x32"]),
    ],
)
def test_an_evaluation_runs_as_a_job(
    server: JobServer, model_folder: str, tmp_path: Path, name: str, small: list[str]
) -> None:
    log: list[str] = []
    model = [] if name == "eval-distances" else [f"model={model_folder}"]
    spec = load_spec(SPECS / f"{name}.yaml", [*model, f"output={tmp_path / 'eval'}", *small, "workers.count=1"])
    done = submit(spec, server.address, on_log=log.append)
    assert done.status == "SUCCEEDED", "".join(log)
    assert (tmp_path / "eval" / "results.json").is_file()


def cmdline(process: psutil.Process) -> str:
    """As others see it; empty when it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
