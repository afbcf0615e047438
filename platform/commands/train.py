"""`rayramid train`: a spec and a dataset to a model."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, cast

import typer

from rayramid.platform.cluster import connect
from rayramid.platform.commands.options import Address, AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, progress, result
from rayramid.platform.spec import load_spec

if TYPE_CHECKING:
    from rayramid.platform.training.spec import TrainSpec


def train(
    spec: SpecFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and what it costs; train nothing.")] = False,
    overrides: Overrides = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Train what a spec describes; run again, it continues from the last checkpoint.

    Example: rayramid train infra/specs/train-local.yaml
    """
    from rayramid.platform.training import run

    train_spec = cast("TrainSpec", load_spec(spec, overrides or [], kind="train"))
    if dry_run:
        plan = run.dry_run(train_spec)
        if as_json:
            emit_json(dataclasses.asdict(plan))
        else:
            result(plan.text())
        return
    with connect(address), progress() as update:
        done = run.train(
            train_spec, on_progress=lambda step, total, loss: update("steps", step, total, f"loss {loss:.3f}")
        )
    if as_json:
        emit_json(dataclasses.asdict(done))
        return
    result(f"trained {done.steps} steps, loss {done.final_loss:.4f}")
    if done.damaged:
        result(f"damaged  {done.damaged} visits left out; 'damaged_files' in the metrics names the files")
    result(f"model    {done.folder}")
    result(f"metrics  {done.metrics}")
    result(f"curves   tensorboard --logdir {done.tensorboard}")
    result(f"next: rayramid sample --model {done.folder} --prompt 'a red circle' --out sample.mp4")
