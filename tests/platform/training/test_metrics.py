"""Lines of metrics survive a restart: one line per step, none from a future that was lost."""

import json
import math

from rayramid.models import storage
from rayramid.platform.training.metrics import Metrics, read_metrics


def test_a_restart_takes_back_what_was_written_after_its_step(tmp_path):
    first = Metrics(str(tmp_path), 0)
    for step in (1, 2, 3):
        first.write(step, {"loss": float(step), "stages": {"0": {"1": 0.5}}})
    # No close: the process died, in the middle of a line.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    second = Metrics(str(tmp_path), 2)
    second.write(3, {"loss": 30.0})
    second.close()
    assert [(record["step"], record["loss"]) for record in read_metrics(str(tmp_path))] == [(1, 1), (2, 2), (3, 30)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_numbers_that_json_does_not_know_become_strings(tmp_path):
    metrics = Metrics(str(tmp_path), 0)
    metrics.write(1, {"loss": math.nan, "stages": {"0": {"0": math.inf}}})
    metrics.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=lambda name: 1 / 0) == {
        "step": 1,
        "loss": "nan",
        "stages": {"0": {"0": "inf"}},
    }


def test_metrics_live_on_s3(s3_bucket):
    metrics = Metrics(s3_bucket, 0)
    metrics.write(1, {"loss": 1.0})
    metrics.close()
    assert read_metrics(s3_bucket) == [{"step": 1, "loss": 1.0}]
    assert list(storage.list_files(storage.join(s3_bucket, "tensorboard")))
