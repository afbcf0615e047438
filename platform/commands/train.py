"""`rayramid train`: a spec and a dataset to a model."""

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, cast

import typer

from rayramid.platform.cluster import connect
from rayramid.platform.commands.options import Address, AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, progress, result, say
from rayramid.platform.interruption import interruptible
from rayramid.platform.spec import load_spec
from rayramid.platform.training.outcome import RunFailedError, StoppedError

if TYPE_CHECKING:
    from rayramid.platform.training.spec import TrainSpec

FAILED = 3


def train(
    spec: SpecFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and what it costs; train nothing.")] = False,
    overrides: Overrides = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Train what a spec describes; run again, it continues from the last checkpoint.

    Ctrl-C or SIGTERM saves the newest step first.

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
    with connect(address), progress() as update, interruptible() as interruption:
        try:
            done = run.train(
                train_spec,
                on_progress=lambda step, total, loss: update("steps", step, total, f"loss {loss:.3f}"),
                stopping=lambda: bool(interruption),
            )
        except StoppedError as stopped:
            say(f"step {stopped.step} is saved")
            sys.exit(interruption.code)
        except RunFailedError as failed:
            say(f"error: {failed}; the same command goes on from the newest checkpoint")
            sys.exit(FAILED)
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
