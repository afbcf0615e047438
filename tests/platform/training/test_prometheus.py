"""What the driver tells Ray's metrics of a run."""

from rayramid.models.metric import Metric
from rayramid.platform.training import prometheus
from rayramid.platform.training.board import News
from rayramid.platform.training.prometheus import METRICS, RunMetrics
from rayramid.platform.training.status import Status


def test_gauges_have_the_newest_facts_and_the_ages_of_line_and_checkpoint():
    now = [100.0]
    metrics = RunMetrics("/runs/a", "train", 40, lambda: now[0])

    def values(step, facts, checkpoint, group=1):
        found = metrics.values(News(Status(step, facts, checkpoint), group, 2, ()))
        return {f"{metric.what}_{metric.unit}": value for metric, value in found.items()}

    now[0] = 130.0
    assert values(0, {}, 0) == {
        "done_steps": 0,
        "planned_steps": 40,
        "checkpoint_steps": 0,
        "checkpoint_age_seconds": 30.0,
        "news_age_seconds": 30.0,
        "group_workers": 2,
        "begun_groups": 1,
    }
    now[0] = 140.0
    facts = {"phase": "short", "loss": 0.5, "skipped": 3, "seconds_per_step": 2.0, "memory_gb": 1.5, "wait_share": 0.1}
    first = values(10, facts, 8)
    assert (first["loss_value"], first["skipped_steps"], first["step_seconds"]) == (0.5, 3, 2.0)
    assert (first["memory_bytes"], first["wait_ratio"]) == (1.5e9, 0.1)
    assert (first["checkpoint_steps"], first["checkpoint_age_seconds"], first["news_age_seconds"]) == (8, 0, 0)
    # Nothing new: the workers hang.
    now[0] = 200.0
    later = values(10, facts, 8, group=2)
    assert (later["checkpoint_age_seconds"], later["news_age_seconds"], later["begun_groups"]) == (60, 60, 2)


def test_every_gauge_is_of_the_catalogue():
    declared = {each for each in vars(prometheus).values() if isinstance(each, Metric)}
    assert declared == set(METRICS)
