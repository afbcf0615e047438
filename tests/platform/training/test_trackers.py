"""Trackers hear everything once, under one run, however often the run was killed. Their own stores, no servers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clock import wait_for_another_second, wait_until

from rayramid.models.errors import UserError
from rayramid.platform.training.metrics import Metrics, read_metrics
from rayramid.platform.training.spec.seeing import MetricsSettings
from rayramid.platform.training.trackers import check_trackers

# It dies when MLflow has written what came last: a folder as its store, unlike a server, keeps half a line for ever.
DIES = """
import os, signal, sys, time
from pathlib import Path
sys.path = sys.argv[3:]
from test_trackers import begin
from rayramid.platform.training.spec.seeing import MetricsSettings
settings = MetricsSettings.model_validate_json(sys.argv[2])
begin(sys.argv[1], settings)
store = Path(settings.mlflow.tracking_uri.removeprefix("file://"))
while not any(file.read_text().endswith("\\n") for file in store.glob("*/*/metrics/videos/flicker")):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


def begin(output: str | Path, settings: MetricsSettings) -> Metrics:
    """Four steps, and a record that is late."""
    metrics = Metrics(str(output), 0, settings, {"seed": 3})
    for step in (1, 2, 3, 4):
        metrics.write(step, {"phase": "only", "loss": float(step), "stages": {"0": {"1": 0.5}}})
    metrics.write(2, {"videos": {"flicker": 0.9}})
    return metrics


def go_on(output: Path, settings: MetricsSettings, step: int, last: int) -> None:
    metrics = Metrics(str(output), step, settings, {"seed": 3})
    for number in range(step + 1, last + 1):
        metrics.write(number, {"phase": "only", "loss": float(number), "stages": {"0": {"1": 0.5}}})
    metrics.close()


def test_mlflow_hears_everything_once_under_one_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = f"file://{tmp_path / 'mlruns'}"
    settings = MetricsSettings.model_validate({"mlflow": {"tracking_uri": store, "experiment": "sprites"}})
    output = tmp_path / "first-run"
    begin(output, settings).close()
    # Twice from step 2: what was told after it is not told again, nor is it after the second time.
    go_on(output, settings, step=2, last=3)
    go_on(output, settings, step=2, last=6)

    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("sprites")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "first-run"
    assert run.info.status == "FINISHED"
    history = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss"))
    assert history == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]
    (late,) = client.get_metric_history(run.info.run_id, "videos/flicker")
    assert (late.step, late.value) == (2, 0.9)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert json.loads((folder / "spec.json").read_text()) == {"seed": 3}
    assert [record["step"] for record in read_metrics(str(output))] == [1, 2, 2, 3, 4, 5, 6]


def test_wandb_hears_everything_once_under_one_run(tmp_path):
    pytest.importorskip("wandb")
    settings = MetricsSettings.model_validate({"wandb": {"mode": "offline", "project": "sprites"}})
    output = tmp_path / "first-run"
    begin(output, settings).close()
    wait_for_another_second()
    go_on(output, settings, step=2, last=6)

    (name,) = {file.name for file in output.glob("wandb/offline-run-*/run-*.wandb")}
    assert name == f"run-{json.loads((output / 'trackers.json').read_text())['ids']['wandb']}.wandb"
    wait_until(lambda: any(row["step"] == 6 for row in wandb_rows(output)))
    rows = list(wandb_rows(output))
    assert [(row["step"], row["loss"], row["stages/0/1"]) for row in rows if "loss" in row] == [
        (step, step, 0.5) for step in range(1, 7)
    ]
    assert [(row["step"], row["videos/flicker"]) for row in rows if "videos/flicker" in row] == [(2, 0.9)]


def test_a_killed_process_leaves_a_run_that_goes_on(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = f"file://{tmp_path / 'mlruns'}"
    settings = MetricsSettings.model_validate({"mlflow": {"tracking_uri": store}, "wandb": {"mode": "offline"}})
    output = tmp_path / "run"
    arguments = [str(output), settings.model_dump_json(), str(Path(__file__).parent), *sys.path]
    # With a service process of its own, as workers of a cluster have, and not this one's.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    died = subprocess.run([sys.executable, "-c", DIES, *arguments], check=False, env=environment)
    assert died.returncode == -signal.SIGKILL
    ids = json.loads((output / "trackers.json").read_text())["ids"]
    wait_for_another_second()
    go_on(output, settings, step=2, last=6)

    client = mlflow.MlflowClient(tracking_uri=store)
    steps = [metric.step for metric in client.get_metric_history(ids["mlflow"], "loss")]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]
    wait_until(lambda: any(row["step"] == 6 for row in wandb_rows(output)))
    rows = list(wandb_rows(output))
    assert len({row["step"] for row in rows if "loss" in row}) == len([row for row in rows if "loss" in row])
    assert {file.stem for file in output.glob("wandb/offline-run-*/run-*.wandb")} == {f"run-{ids['wandb']}"}
    assert [record["step"] for record in read_metrics(str(output))] == [1, 2, 2, 3, 4, 5, 6]


def test_a_tracker_that_is_not_there_is_a_mistake_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = MetricsSettings.model_validate({"mlflow": {"tracking_uri": "http://127.0.0.1:9"}})
    with pytest.raises(UserError, match=r"^metrics\.mlflow: .*127\.0\.0\.1") as refused:
        Metrics(str(tmp_path), 0, settings)
    assert "\n" not in str(refused.value)


def test_a_server_that_goes_away_costs_what_was_to_be_told_and_nothing_else(tmp_path, monkeypatch, caplog):
    """A store whose folder vanishes, as a server that answers with errors."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    settings = MetricsSettings.model_validate({"mlflow": {"tracking_uri": f"file://{tmp_path / 'mlruns'}"}})
    metrics = Metrics(str(tmp_path / "run"), 0, settings)
    metrics.write(1, {"loss": 1.0})
    # At once, while MLflow may still be writing into it.
    (tmp_path / "mlruns").rename(tmp_path / "gone")
    metrics.write(2, {"loss": 2.0})
    metrics.close()
    assert "MLflow does not take what is logged" in caplog.text
    assert [record["step"] for record in read_metrics(str(tmp_path / "run"))] == [1, 2]


def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install():
    code = (
        "import sys; sys.modules['wandb'] = None\n"
        "from rayramid.platform.training.trackers import check_trackers\n"
        "from rayramid.platform.training.spec.seeing import MetricsSettings\n"
        "check_trackers(MetricsSettings(wandb={}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "metrics.wandb: it is not installed; pip install 'rayramid[wandb]'" in done.stderr
    check_trackers(MetricsSettings())


def wandb_rows(output: Path):
    """What was logged offline, over all starts of the run."""
    for file in sorted(output.glob("wandb/offline-run-*/run-*.wandb")):
        for record in wandb_records(file.read_bytes()):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def wandb_records(data: bytes):
    """The records of a `.wandb` file: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + 7 + length > len(data):
            return
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""
