"""Training from a spec: checks everything before any worker starts, trains, exports."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rayramid.models import storage
from rayramid.models.checkpoint import git_revision
from rayramid.models.errors import UserError
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.data import pin_versions
from rayramid.platform.training.dry_run import DryRun, examine
from rayramid.platform.training.export import export
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.outcome import StoppedError
from rayramid.platform.training.spec import TrainSpec
from rayramid.platform.training.start import RUN
from rayramid.platform.training.trackers import check_trackers

log = logging.getLogger(__name__)

# What may change between two starts of a run without changing any number that it computes.
FREE = {
    "output",
    "workers",
    "checkpoints",
    "validation",
    "sampling",
    "log_every",
    "damaged_clips",
    "metrics",
    "parallel",
    "memory",
    "compile",
}


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        folder: the inference model.
        steps: optimiser steps in all.
        final_loss: the last one written to the metrics.
        metrics: the JSON lines.
        tensorboard: the folder of TensorBoard events.
        damaged: how often a clip was left out because its file is missing or corrupt.
    """

    folder: str
    steps: int
    final_loss: float
    metrics: str
    tensorboard: str
    damaged: int

    def lines(self) -> list[str]:
        """For people: where everything is, and what to try next."""
        damaged = f"damaged  {self.damaged} visits left out; 'damaged_files' in the metrics names the files"
        return [
            f"trained {self.steps} steps, loss {self.final_loss:.4f}",
            *([damaged] if self.damaged else []),
            f"model    {self.folder}",
            f"metrics  {self.metrics}",
            f"curves   tensorboard --logdir {self.tensorboard}",
            f"next: rayramid sample --model {self.folder} --prompt 'a red circle' --out sample.mp4",
        ]


def train(
    spec: TrainSpec,
    on_progress: Callable[[int, int, float], None] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Trains `spec` on the Ray cluster that this process is connected to, and exports the model.

    The same call continues a run that was stopped, at its newest checkpoint, and exports one that is finished again.

    Args:
        spec: the run.
        on_progress: called with (step, steps in all, loss).
        stopping: asked now and then; True ends the run at a checkpoint.

    Raises:
        UserError: the spec can't be trained as it is, the output holds another run, or training met a user's mistake.
        RunFailedError: machines failed more often than the spec bears.
        StoppedError: as `stopping` wished.
    """
    from rayramid.platform.training.trainer import fit

    check_trackers(spec.metrics)
    storage.check_writable(spec.output)
    spec = settle(spec)
    examine(spec)
    newest = checkpoints.latest(storage.join(spec.output, "checkpoints"))
    if (newest is None or newest.step < spec.steps) and not fit(spec, on_progress, stopping):
        stopped = checkpoints.latest(storage.join(spec.output, "checkpoints"))
        raise StoppedError(stopped.step if stopped else 0)
    folder = export(spec)
    records = [record for record in read_metrics(spec.output) if "loss" in record]
    log.info("model exported", extra={"folder": folder})
    return TrainResult(
        folder=folder,
        steps=spec.steps,
        final_loss=float(records[-1]["loss"]),
        metrics=storage.join(spec.output, "metrics.jsonl"),
        tensorboard=storage.join(spec.output, "tensorboard"),
        damaged=sum(record.get("damaged", 0) for record in records),
    )


def dry_run(spec: TrainSpec) -> DryRun:
    """What `spec` would do, refused as `train` would refuse it; starts nothing and writes nothing."""
    return examine(pin_versions(spec, _run_of(spec).get("datasets", {})))


def settle(spec: TrainSpec) -> TrainSpec:
    """The spec with dataset versions fixed to those that the run at its output began with; notes the run there.

    Raises:
        UserError: the output holds a run that computes something else; names what differs.
    """
    before = _run_of(spec)
    pinned = pin_versions(spec, before.get("datasets", {}))
    fields = pinned.model_dump(mode="json")
    if before:
        different = difference(before["spec"], fields)
        if different is not None:
            raise UserError(
                f"{spec.output} holds a run that differs in {different}; choose another output, or go on as it began"
            )
    versions = {root.root: root.version for phase in pinned.phases for root in phase.data}
    note = {"format_version": 1, "spec": fields, "datasets": versions, "git_revision": git_revision()}
    storage.write_atomic(_note(spec), json.dumps(note, indent=1).encode())
    return pinned


def difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first key in which two specs would compute different numbers; phases may be added at the end."""
    for key, value in before.items():
        if key in FREE:
            continue
        if key == "phases":
            for number, phase in enumerate(value):
                if number >= len(now["phases"]):
                    return f"phases.{number}"
                for name in phase:
                    if phase[name] != now["phases"][number][name]:
                        return f"phases.{number}.{name}"
        elif isinstance(value, dict):
            for name in value:
                if value[name] != now[key][name]:
                    return f"{key}.{name}"
        elif value != now[key]:
            return key
    return None


def _note(spec: TrainSpec) -> str:
    return storage.join(spec.output, RUN)


def _run_of(spec: TrainSpec) -> dict[str, Any]:
    if not storage.exists(_note(spec)):
        return {}
    return dict(json.loads(storage.read_bytes(_note(spec))))
