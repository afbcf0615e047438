"""Training from a spec: checks everything before any worker starts, trains, exports."""

import json
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rayramid.models import storage
from rayramid.models.checkpoint import git_revision
from rayramid.models.errors import UserError
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.data import pin_versions
from rayramid.platform.training.dry_run import DryRun
from rayramid.platform.training.examine import examine
from rayramid.platform.training.export import export
from rayramid.platform.training.late import Late, write_late
from rayramid.platform.training.lora import check_lora
from rayramid.platform.training.metrics import open_metrics, read_metrics
from rayramid.platform.training.optimizer import check_optimizer
from rayramid.platform.training.outcome import StoppedError
from rayramid.platform.training.spec.train import TrainSpec
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
    "videos",
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
        places: where everything is.
        damaged: how often a clip was left out because its file is missing or corrupt.
        prompt: one to try.
        videos_failed: why there are no videos, by the steps of which there should be.
    """

    folder: str
    steps: int
    final_loss: float
    places: Mapping[str, str]
    damaged: int
    prompt: str
    videos_failed: Mapping[int, str]

    def lines(self) -> list[str]:
        """For people: where everything is, and what to try next."""
        damaged = f"damaged     {self.damaged} visits left out; 'damaged_files' in the metrics names the files"
        return [
            f"trained {self.steps} steps, loss {self.final_loss:.4f}",
            *([damaged] if self.damaged else []),
            *(f"{name:<11} {place}" for name, place in self.places.items()),
            *(f"no videos of step {step}: {cause}" for step, cause in self.videos_failed.items()),
            "What to try next:",
            f"  tensorboard --logdir {self.places['tensorboard']}",
            f"  rayramid sample --model {self.folder} --prompt {shlex.quote(self.prompt)} --out sample.mp4",
            f"  rayramid weights export {self.places['checkpoints']}/step-{self.steps:08d} DIR  # or an earlier step",
        ]


def train(
    spec: TrainSpec,
    on_progress: Callable[[int, int, str], None] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Trains `spec` on the Ray cluster that this process is connected to, and exports the model.

    The same call continues a run that was stopped, at its newest checkpoint, and exports one that is finished again.

    Args:
        spec: the run.
        on_progress: called with (step, steps in all, how it goes).
        stopping: asked now and then; True ends the run at a checkpoint.

    Raises:
        UserError: the spec can't be trained as it is, the output holds another run, or training met a user's mistake.
        RunFailedError: machines failed more often than the spec bears.
        StoppedError: as `stopping` wished.
    """
    from rayramid.platform.training.beside import VideoTasks
    from rayramid.platform.training.trainer import fit

    check_trackers(spec.metrics)
    check_optimizer(spec.optimizer)
    check_lora(spec.lora)
    storage.check_writable(spec.output)
    spec = settle(spec)
    examine(spec)
    newest = checkpoints.latest(storage.join(spec.output, "checkpoints"))
    with VideoTasks(spec) as videos:
        if (newest is None or newest.step < spec.steps) and not fit(spec, on_progress, stopping, videos):
            stopped = checkpoints.latest(storage.join(spec.output, "checkpoints"))
            raise StoppedError(stopped.step if stopped else 0)
        if on_progress is not None and spec.videos.prompts:
            on_progress(spec.steps, spec.steps, "makes videos of the last step")
        _write_late(spec, videos.finish())
    folder = export(spec)
    records = read_metrics(spec.output)
    lines = [record for record in records if "loss" in record]
    log.info("model exported", extra={"folder": folder})
    return TrainResult(
        folder=folder,
        steps=spec.steps,
        final_loss=float(lines[-1]["loss"]),
        places=spec.places,
        damaged=sum(line.get("damaged", 0) for line in lines),
        prompt=next(iter(spec.videos.prompts), "a red circle"),
        videos_failed={record["step"]: record["videos_failed"] for record in records if "videos_failed" in record},
    )


def _write_late(spec: TrainSpec, found: Sequence[Late]) -> None:
    """Writes what the workers are gone for; the metrics are opened only if there is something."""
    records = read_metrics(spec.output)
    if any(not any(r["step"] == late.step and late.record.keys() <= r.keys() for r in records) for late in found):
        with closing(open_metrics(spec, spec.steps)) as metrics:
            write_late(metrics, found)


def dry_run(spec: TrainSpec) -> DryRun:
    """What `spec` would do, refused as `train` would refuse it; starts nothing and writes nothing.

    Datasets that are missing may have an outline in the spec, which `train` does not look at.
    """
    return examine(pin_versions(spec, _run_of(spec).get("datasets", {}), outlines=True), outlines=True)


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
        elif isinstance(value, dict) and isinstance(now[key], dict):
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
