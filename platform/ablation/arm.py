"""One run of an ablation: trained to a point, and measured there. Knows nothing of Ray."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from rayramid.models import storage
from rayramid.models.checkpoint import Model, git_revision, pyramid_of
from rayramid.models.errors import UserError
from rayramid.models.flops import parameter_count
from rayramid.models.precision import sampling_dtype
from rayramid.models.text import load_text
from rayramid.models.vae.io import load_vae
from rayramid.platform.ablation.measure import Reference, measured
from rayramid.platform.ablation.plan import Mark, Piece, marks, training_of
from rayramid.platform.ablation.spec import AblationSpec
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.data import index_of, open_datasets
from rayramid.platform.training.export import trained
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.loop import run as train
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.model import configure
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.plan import steps
from rayramid.platform.training.spec.train import TrainSpec


def marks_of(spec: AblationSpec, run: TrainSpec) -> list[Mark]:
    """The points of a run, by the operations of what its plan will read."""
    config, _, _ = configure(run.model)
    index = index_of(
        run.phases[0], open_datasets(run), measure_for(config, run.phases[0].finest_level), config.frames_per_unit
    )

    def costs() -> Iterator[tuple[float, int]]:
        for bins in steps(index, run.phases[0], run.seed):
            yield sum(b.flops for b in bins), run.phases[0].stages(config.levels) * sum(b.units for b in bins)

    return marks(costs(), [point * spec.tflop * 1e12 for point in spec.points])


def train_and_measure(
    spec: AblationSpec, piece: Piece, specs: Mapping[str, TrainSpec], files: Mapping[str, str], truth: Reference | None
) -> None:
    """Does a piece: its run goes on to the point, and what was measured there is written.

    Args:
        spec: the ablation.
        piece: what to do.
        specs: the training specs of the arms that are measured, and of the one that is trained.
        files: where the measurements of each arm go.
        truth: what videos are compared with; None makes none.

    Raises:
        UserError: the run has gone past the point and has no checkpoint there.
    """
    run, step = training_of(specs[piece.arm]), piece.mark.step
    seconds = train_to(run, step)
    records = [record for record in read_metrics(run.output) if record["step"] == step]
    for arm in piece.todo:
        began = time.monotonic()
        found: dict[str, Any] = {"step": step, "tflop": piece.mark.tflop, "targets": piece.mark.targets}
        found["parameters"] = parameter_count(configure(specs[arm].model)[0])
        found["loss"] = next((record["validation_loss"] for record in records if "validation_loss" in record), None)
        if truth is not None:
            found |= measured(load(specs[arm], step), spec.measure, truth)
        found["seconds"] = {"training": round(seconds, 1), "measuring": round(time.monotonic() - began, 1)}
        found["revision"] = git_revision()
        storage.write_atomic(files[arm], json.dumps(found, indent=1).encode() + b"\n")


def train_to(run: TrainSpec, step: int) -> float:
    """Trains to a step from the newest checkpoint, unless the step has one; returns how many seconds that took."""
    began = time.monotonic()
    there = [checkpoint.step for checkpoint in checkpoints.committed(storage.join(run.output, "checkpoints"))]
    if step in there:
        return 0.0
    if there and there[-1] > step:
        raise UserError(f"{run.output}: is at step {there[-1]} and has no checkpoint of step {step}; remove the run")
    phase = run.phases[0].model_copy(update={"steps": step})
    device = torch.device("cuda" if run.workers.gpus else "cpu")
    train(run.model_copy(update={"phases": (phase,)}), Ranks(1, 0, device), lambda step, record: None)
    return time.monotonic() - began


def load(run: TrainSpec, step: int) -> Model:
    """The averaged weights of a step with all that sampling needs."""
    card, dit, datasets = trained(run, source=storage.join(run.output, "checkpoints", f"step-{step:08d}"))
    device = "cuda" if run.workers.gpus else "cpu"
    dtype = sampling_dtype(device)
    return Model(
        card=card,
        dit=dit.to(device, dtype).eval(),
        vae=load_vae(datasets.first.vae_url).to(device, dtype),
        text=load_text(datasets.first.text_url, device=device, dtype=dtype),
        pyramid=pyramid_of(card),
    )


def read(files: Sequence[str]) -> list[dict[str, Any]]:
    """Measurements that are there."""
    return [json.loads(storage.read_bytes(file)) for file in files]
