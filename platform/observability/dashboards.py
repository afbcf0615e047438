"""What the dashboards show."""

from collections.abc import Mapping
from dataclasses import dataclass

from rayramid.models.metric import Metric
from rayramid.pipelines import metrics as data
from rayramid.platform.observability.expressions import FAILED, mean, quantile, rate, total
from rayramid.platform.training import prometheus as training
from rayramid.serve import metrics as serving


@dataclass(frozen=True)
class Panel:
    """Curves over time.

    Args:
        title: with what it means, if that is not plain.
        unit: Grafana's name of it.
        curves: expressions by their legends, in which `{{label}}` is a label's value.
    """

    title: str
    unit: str
    curves: Mapping[str, str]


@dataclass(frozen=True)
class Dashboard:
    """Panels, two in a row; with `of`, for runs that are chosen among that metric's."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    of: Metric | None = None


def _job(expression: str) -> Mapping[str, str]:
    return {"{{data_job}}": expression}


DATA = Dashboard(
    "rayramid-data",
    "rayramid data jobs",
    (
        Panel("Shards to do", "none", _job(f"{total(data.PLANNED, 'data_job')} - {total(data.DONE, 'data_job')}")),
        Panel("Input rows a second", "rowsps", {"{{data_job}} {{outcome}}": rate(data.ROWS, "data_job, outcome")}),
        Panel(
            "Failed share of input rows",
            "percentunit",
            _job(f"{rate(data.ROWS, 'data_job', where=FAILED)} / {rate(data.ROWS, 'data_job')}"),
        ),
        Panel("Workers that are busy", "none", _job(rate(data.SECONDS, "data_job"))),
        Panel("Worker seconds a row", "s", _job(f"{rate(data.SECONDS, 'data_job')} / {rate(data.ROWS, 'data_job')}")),
        Panel("Bytes written a second", "Bps", _job(rate(data.BYTES, "data_job"))),
    ),
)


def _run(metric: Metric, legend: str = "{{run}}") -> Mapping[str, str]:
    return {legend: f'{metric.exported}{{run=~"$run"}}'}


TRAINING = Dashboard(
    "rayramid-training",
    "rayramid training",
    (
        Panel("Loss", "none", {**_run(training.LOSS), **_run(training.HELD_OUT, "{{run}} held out")}),
        Panel("Steps", "none", {**_run(training.DONE, "{{run}} done"), **_run(training.PLANNED, "{{run}} planned")}),
        Panel("Tokens a second", "none", _run(training.TOKENS)),
        Panel("Frames a second (VAE)", "none", _run(training.FRAMES)),
        Panel("Seconds a step", "s", _run(training.STEP)),
        Panel("Share of the time spent waiting for data", "percentunit", _run(training.WAIT)),
        Panel("Model FLOPs utilisation", "percentunit", _run(training.MFU)),
        Panel("Peak memory", "bytes", _run(training.MEMORY)),
        Panel("Gradient norm", "none", _run(training.GRADIENT)),
        Panel("Learning rate", "none", _run(training.RATE)),
        Panel("Skipped steps", "none", _run(training.SKIPPED)),
        Panel("Newest checkpoint", "none", _run(training.CHECKPOINT)),
        Panel(
            "Age of the newest checkpoint and line of metrics",
            "s",
            {**_run(training.CHECKPOINT_AGE, "{{run}} checkpoint"), **_run(training.NEWS_AGE, "{{run}} line")},
        ),
        Panel(
            "Workers, and how many groups of them have begun",
            "none",
            {**_run(training.WORKERS, "{{run}} workers"), **_run(training.GROUPS, "{{run}} groups")},
        ),
    ),
    of=training.DONE,
)


def _quantiles(metric: Metric) -> Mapping[str, str]:
    return {f"p{share * 100:.0f}": quantile(share, metric) for share in (0.5, 0.95)}


SERVING = Dashboard(
    "rayramid-serving",
    "rayramid serving",
    (
        Panel("Jobs", "none", {"wait": total(serving.QUEUE), "run": total(serving.RUNNING)}),
        Panel(
            "Jobs that ended a second",
            "ops",
            {
                "completed": rate(serving.COMPLETED),
                "failed: {{kind}}": rate(serving.FAILED, "kind"),
                "refused: {{kind}}": rate(serving.REFUSED, "kind"),
            },
        ),
        Panel("From request to first frame", "s", _quantiles(serving.FIRST_FRAME)),
        Panel("From request to a slot", "s", _quantiles(serving.WAIT)),
        Panel("From segment to segment", "s", _quantiles(serving.GAP)),
        Panel("Seconds of video made a second", "none", {"video": rate(serving.VIDEO)}),
        Panel("Videos in a forward", "none", {"mean": mean(serving.SESSIONS)}),
        Panel("Tokens of a forward, of its budget", "percentunit", {"mean": mean(serving.FILL)}),
        Panel("Time of a forward", "s", _quantiles(serving.STEP)),
        Panel("Keys and values", "bytes", {"{{WorkerId}}": total(serving.CACHE, "WorkerId")}),
        Panel("Attempts that died a second", "ops", {"died": rate(serving.DIED)}),
    ),
)

DASHBOARDS = (DATA, TRAINING, SERVING)
