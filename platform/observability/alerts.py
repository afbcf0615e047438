"""When somebody should look: alerts as Prometheus reads them."""

from dataclasses import dataclass
from typing import Any, Literal

from rayramid.pipelines import metrics as data
from rayramid.platform.observability.expressions import FAILED, growth, quantile, rate, total
from rayramid.platform.training import prometheus as training
from rayramid.serve import metrics as serving


@dataclass(frozen=True)
class Alert:
    """One rule.

    Args:
        name: of the alert.
        expression: gives something while it is wrong.
        lasts: before anybody is told.
        severity: `critical` if nothing goes on until somebody acts.
        summary: one line, in which `{{ $labels.run }}` is a label's value.
        action: what to look at.
    """

    name: str
    expression: str
    lasts: str
    severity: Literal["warning", "critical"]
    summary: str
    action: str


def _kind(kind: str) -> str:
    return f'{{kind="{kind}"}}'


_RUN = "{{ $labels.run }}"
_JOB = "{{ $labels.data_job }}"
_FAILED_ROWS = rate(data.ROWS, "data_job", "15m", FAILED)
_ROWS = rate(data.ROWS, "data_job", "15m")
_TO_DO = f"{total(data.PLANNED, 'data_job')} - {total(data.DONE, 'data_job')}"

DATA = (
    Alert(
        "RayramidDataRowsFail",
        f"{_FAILED_ROWS} / {_ROWS} > 0.05",
        "10m",
        "warning",
        f"More than 5 % of the input rows of {_JOB} fail",
        "The report and ROOT/failed name the files and what was wrong; 'rayramid data retry' tries them again.",
    ),
    Alert(
        "RayramidDataStalled",
        f"({_TO_DO}) > 0 and {rate(data.DONE, 'data_job', '30m')} == 0",
        "15m",
        "warning",
        f"{_JOB} has shards to do and has committed none for 30 minutes",
        "Ray's dashboard shows whether its workers wait for resources; shards may be larger than that.",
    ),
)
TRAINING = (
    Alert(
        "RayramidTrainLossNotFinite",
        f"{training.LOSS.exported} != {training.LOSS.exported}",
        "1m",
        "critical",
        f"The loss of {_RUN} is not a number",
        "Stop the run; go on from an earlier checkpoint with a lower learning rate.",
    ),
    Alert(
        "RayramidTrainStepsSkipped",
        f"delta({training.SKIPPED.exported}[30m]) > 5",
        "0m",
        "warning",
        f"{_RUN} has skipped more than 5 steps in 30 minutes",
        "Their gradients were not finite; the run ends at skip_limit.",
    ),
    Alert(
        "RayramidTrainStalled",
        f"{training.NEWS_AGE.exported} > 1800",
        "0m",
        "critical",
        f"{_RUN} has written no metrics for 30 minutes",
        "Workers may wait for resources or for storage: see Ray's dashboard and the log of the driver.",
    ),
    Alert(
        "RayramidTrainCheckpointOld",
        f"{training.CHECKPOINT_AGE.exported} > 14400",
        "0m",
        "warning",
        f"{_RUN} has committed no checkpoint for 4 hours",
        "The log says why one could not be written; checkpoints.every may be too large.",
    ),
    Alert(
        "RayramidTrainWaitsForData",
        f"{training.WAIT.exported} > 0.2",
        "15m",
        "warning",
        f"{_RUN} waits for its data for more than a fifth of the time",
        "Read from nearer storage, or give the workers more CPUs.",
    ),
    Alert(
        "RayramidTrainWorkersDie",
        f"delta({training.GROUPS.exported}[1h]) > 2",
        "0m",
        "warning",
        f"The workers of {_RUN} were started again more than twice in an hour",
        "The log of the driver says what they died of; the run ends after workers.restarts.",
    ),
)
SERVING = (
    Alert(
        "RayramidServeNothingRuns",
        f"{total(serving.QUEUE)} > 0 and {total(serving.RUNNING)} == 0",
        "2m",
        "critical",
        "Jobs wait and none is made",
        "See the replicas of Sampler in Ray's dashboard, and their logs.",
    ),
    Alert(
        "RayramidServeJobsFail",
        f"{growth(serving.FAILED, '10m', _kind('server_error'))} > 0",
        "0m",
        "critical",
        "Videos were given up after several attempts",
        "The logs of Sampler say why, with the video's id as 'job'.",
    ),
    Alert(
        "RayramidServeAttemptsDie",
        f"{growth(serving.DIED, '10m')} > 3",
        "0m",
        "warning",
        "More than 3 attempts at videos have died in 10 minutes",
        "Replicas may run out of memory: lower sampler.max_sessions or sampler.cache_gib.",
    ),
    Alert(
        "RayramidServeFull",
        f"{growth(serving.REFUSED, '10m', _kind('queue_full'))} > 0",
        "10m",
        "warning",
        "Jobs are refused since too many wait",
        "Add replicas of Sampler (sampler.replicas).",
    ),
    Alert(
        "RayramidServeSlow",
        f"{quantile(0.95, serving.FIRST_FRAME, '10m')} > 30",
        "10m",
        "warning",
        "One in twenty viewers waits longer than 30 seconds for the first frame",
        "Compare the wait for a slot (add replicas) with the time of a forward (fewer sessions in one).",
    ),
)


def rules() -> dict[str, Any]:
    """The rule file."""
    groups = {"rayramid-data": DATA, "rayramid-training": TRAINING, "rayramid-serving": SERVING}
    return {"groups": [{"name": name, "rules": [_rule(each) for each in alerts]} for name, alerts in groups.items()]}


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.lasts,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "description": alert.action},
    }
