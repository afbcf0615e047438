"""What an ablation does, as pure functions of its spec and of what is there: its runs, their steps, what is left."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from rayramid.models.errors import UserError
from rayramid.models.storage import join
from rayramid.platform.ablation.spec import AblationSpec, Settings
from rayramid.platform.training.run import FREE
from rayramid.platform.training.spec.model import Sampling
from rayramid.platform.training.spec.train import TrainSpec

KEPT, NEVER = 10**6, 10**9


@dataclass(frozen=True)
class Mark:
    """A moment of a run.

    Attributes:
        step: optimiser steps done.
        tflop: training operations of these, in 10^12.
        targets: noisy units that the model has learned from, each at one level.
    """

    step: int
    tflop: float
    targets: int


@dataclass(frozen=True)
class Piece:
    """A run from one point to the next, and the measurements there.

    Attributes:
        arm: the first of those that have the run's weights.
        seed: of the run.
        mark: the point.
        todo: the arms that are measured there and have not been.
    """

    arm: str
    seed: int
    mark: Mark
    todo: tuple[str, ...]


def dotted(settings: Settings) -> dict[str, Any]:
    """Settings with every key written as a path: `{model: {levels: 1}}` is `{model.levels: 1}`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inner = {f"{key}.{name}": item for name, item in dotted(value).items()} if isinstance(value, dict) else {}
        found |= inner or {str(key): value}
    return found


def overrides(spec: AblationSpec, arm: str) -> list[str]:
    """What makes an arm's training spec of the base, as `--set` takes it."""
    return [f"{key}={json.dumps(value)}" for key, value in (dotted(spec.settings) | dotted(spec.arms[arm])).items()]


def run_of(spec: AblationSpec, base: TrainSpec, arm: str, seed: int) -> TrainSpec:
    """The training run of an arm and a seed.

    Raises:
        UserError: more than one phase or worker, or a learning rate that depends on where the run ends.
    """
    if len(base.phases) != 1:
        raise UserError(f"{spec.base}: has {len(base.phases)} phases; an ablation's runs have one")
    if base.phases[0].schedule.kind != "constant":
        raise UserError(
            f"{spec.base}: phases.0.schedule.kind is {base.phases[0].schedule.kind}; it must be constant, so that every"
            " point is where a run of that length would end"
        )
    if base.workers.most != 1:
        raise UserError(f"{spec.base}: has {base.workers.most} workers; an ablation's runs have one each")
    run = base.model_copy(
        update={
            "seed": seed,
            # The weights of every point stay, to be measured otherwise later.
            "checkpoints": base.checkpoints.model_copy(update={"keep_last": KEPT}),
            "validation": base.validation.model_copy(update={"every": NEVER}),
        }
    )
    return run.model_copy(update={"output": join(spec.runs, trains(run))})


def training_of(run: TrainSpec) -> TrainSpec:
    """The run without what only sampling heeds, which arms with the same weights may differ in."""
    return run.model_copy(update={"model": run.model.model_copy(update={"renoise": None}), "sampling": Sampling()})


def trains(run: TrainSpec) -> str:
    """Identity of what a run trains."""
    fields = training_of(run).model_dump(mode="json", exclude_none=True)
    return fingerprint({key: value for key, value in fields.items() if key not in FREE})


def fingerprint(*parts: dict[str, Any]) -> str:
    """Identity of some settings."""
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=6).hexdigest()


def marks(steps: Iterable[tuple[float, int]], budgets: Sequence[float]) -> list[Mark]:
    """Where a run has spent each budget: after the last step that it pays for in full, but after one at least.

    Args:
        steps: operations and targets of every step of the run, without end.
        budgets: rising, in operations.
    """
    found: list[Mark] = []
    mark = Mark(0, 0.0, 0)
    for flops, targets in steps:
        following = Mark(mark.step + 1, mark.tflop + flops / 1e12, mark.targets + targets)
        while mark.step and following.tflop * 1e12 > budgets[len(found)]:
            found.append(mark)
            if len(found) == len(budgets):
                return found
        mark = following
    raise ValueError("the steps end before the budgets do")


def pieces(
    runs: Mapping[tuple[str, int], Sequence[Mark]],
    arms: Mapping[tuple[str, int], Sequence[str]],
    there: Callable[[str, int, Mark], bool],
) -> list[Piece]:
    """What is left to do, run by run as they come, of each run in the order of its points.

    Args:
        runs: the points of every run, by its first arm and its seed.
        arms: those that are measured with the weights of each run.
        there: whether an arm was measured, with a seed, at a mark.
    """
    found = []
    for (arm, seed), points in runs.items():
        for mark in points:
            todo = tuple(name for name in arms[arm, seed] if not there(name, seed, mark))
            if todo:
                found.append(Piece(arm, seed, mark, todo))
    return found
