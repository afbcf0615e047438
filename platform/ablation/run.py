"""An ablation on a Ray cluster: runs dealt to workers, measurements and a result in a folder.

result.json    every number, with the command, revision, seeds and machine that gave it
figure.svg     the same beside what the paper claims

What was measured is kept with the runs, which ablations share: measured/STEP.ID.json, where ID is that of all that it
depends on beside the weights.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, cast

from rayramid.models import storage
from rayramid.models.checkpoint import git_revision
from rayramid.models.cpu import compute_on_cpu
from rayramid.models.random_features import NAME
from rayramid.platform.ablation import arm as arms
from rayramid.platform.ablation.figure import figure
from rayramid.platform.ablation.measure import reference
from rayramid.platform.ablation.plan import Mark, Piece, fingerprint, overrides, pieces, run_of, training_of
from rayramid.platform.ablation.result import sum_up
from rayramid.platform.ablation.spec import AblationSpec
from rayramid.platform.evaluation.record import machine
from rayramid.platform.spec import load_spec
from rayramid.platform.training.data import open_datasets
from rayramid.platform.training.examine import examine
from rayramid.platform.training.export import default_video
from rayramid.platform.training.run import settle
from rayramid.platform.training.spec.train import TrainSpec

RESULT, FIGURE = "result.json", "figure.svg"


class Ablation:
    """What an ablation will do, settled with what is at its output.

    Attributes:
        spec: the ablation.
        runs: the training spec of every arm and seed.
        arms: those that have the weights of each run, which is named by the first of them, and its seed.
        marks: the points of each run.

    Raises:
        UserError: a base that does not fit, or an output that holds other runs.
    """

    def __init__(self, spec: AblationSpec, folder: Path) -> None:
        self.spec = spec
        self.runs: dict[tuple[str, int], TrainSpec] = {}
        self.arms: dict[tuple[str, int], list[str]] = {}
        first: dict[str, str] = {}
        # Seed by seed, so that there is a comparison early.
        for seed, arm in product(spec.seeds, spec.arms):
            base = cast("TrainSpec", load_spec(folder / spec.base, overrides(spec, arm), kind="train"))
            run = run_of(spec, base, arm, seed)
            settled = settle(training_of(run))
            self.runs[arm, seed] = settled.model_copy(update={"model": run.model, "sampling": run.sampling})
            self.arms.setdefault((first.setdefault(run.output, arm), seed), []).append(arm)
        for arm, seed in self.arms:
            if seed == spec.seeds[0]:
                examine(self.runs[arm, seed])
        self.marks = {run: arms.marks_of(spec, self.runs[run]) for run in self.arms}

    def points(self, arm: str, seed: int) -> list[Mark]:
        """Where an arm is measured."""
        return next(marks for run, marks in self.marks.items() if run[1] == seed and arm in self.arms[run])

    def file(self, arm: str, seed: int, mark: Mark) -> str:
        """Where the measurements of an arm at a point are."""
        run = self.runs[arm, seed]
        sampled = run.model_dump(mode="json", exclude_none=True, include={"model", "sampling"})
        measure = self.spec.measure.model_dump(mode="json", exclude={"loss"})
        identity = fingerprint({"features": NAME}, sampled, measure)
        return storage.join(run.output, "measured", f"{mark.step:08d}.{identity}.json")

    def left(self) -> list[Piece]:
        """What is left to do."""
        return pieces(self.marks, self.arms, lambda arm, seed, mark: storage.exists(self.file(arm, seed, mark)))

    def found(self) -> dict[str, dict[int, list[dict[str, Any]]]]:
        """Everything that was measured, by arm and seed, in the order of the points."""
        return {
            arm: {
                seed: arms.read([self.file(arm, seed, mark) for mark in self.points(arm, seed)])
                for seed in self.spec.seeds
            }
            for arm in self.spec.arms
        }


def ablate(
    spec: AblationSpec, folder: Path, command: str, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Does what is left of an ablation; the result is also written to its output. Expects Ray to be initialised.

    Args:
        spec: what to compare.
        folder: of the file of the spec, from where its base is found.
        command: what was typed, for the record.
        on_progress: called with points measured and in all.

    Raises:
        UserError: as `Ablation`.
    """
    storage.check_writable(spec.output)
    ablation = Ablation(spec, folder)
    left = ablation.left()
    total = len(ablation.arms) * len(spec.points)
    if on_progress:
        on_progress(total - len(left), total)
    for done in _on_ray(ablation, left):
        if on_progress:
            on_progress(total - len(left) + done, total)
    result = {
        "command": command,
        "revision": git_revision(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "features": NAME,
        # Where it was done is no one else's business.
        "spec": spec.model_dump(mode="json", exclude={"output", "runs"}),
        **sum_up(spec, ablation.found()),
    }
    storage.write_atomic(storage.join(spec.output, RESULT), json.dumps(result, indent=1).encode() + b"\n")
    storage.write_atomic(storage.join(spec.output, FIGURE), figure(result).encode())
    return result


def _on_ray(ablation: Ablation, left: list[Piece]) -> Iterator[int]:
    """Does the pieces, those of one run one after the other; yields how many are done."""
    import ray

    spec = ablation.spec
    any_run = next(iter(ablation.runs.values()))
    needs = {"num_cpus": any_run.workers.cpus, "num_gpus": int(any_run.workers.gpus), "max_retries": 2}
    truth = ray.remote(_reference).options(**needs).remote(spec, any_run) if spec.measure.prompts and left else None
    work = ray.remote(_work).options(**needs)
    before: dict[tuple[str, int], Any] = {}
    waiting = []
    for piece in left:
        run = piece.arm, piece.seed
        specs = {arm: ablation.runs[arm, piece.seed] for arm in (piece.arm, *piece.todo)}
        files = {arm: ablation.file(arm, piece.seed, piece.mark) for arm in piece.todo}
        # The piece before is an argument, so that Ray begins this one when that is done.
        before[run] = work.remote(spec, piece, specs, files, truth, before.get(run))
        waiting.append(before[run])
    for done in range(1, len(left) + 1):
        ready, waiting = ray.wait(waiting)
        ray.get(ready)
        yield done


def _reference(spec: AblationSpec, run: TrainSpec) -> Any:
    compute_on_cpu(run.workers.cpus)
    width, height, _, _ = default_video(run.phases[0], open_datasets(run))
    return reference(spec.measure, width, height)


def _work(
    spec: AblationSpec,
    piece: Piece,
    specs: Mapping[str, TrainSpec],
    files: Mapping[str, str],
    truth: Any,
    before: None = None,
) -> None:
    compute_on_cpu(specs[piece.arm].workers.cpus)
    arms.train_and_measure(spec, piece, specs, files, truth)
