"""`rayramid train`: a spec and a dataset to a model."""

import dataclasses
import importlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

import typer

from rayramid.platform.cluster import connect
from rayramid.platform.commands.options import Address, AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, progress, result, say
from rayramid.platform.exit_codes import FAILED
from rayramid.platform.interruption import interruptible
from rayramid.platform.spec import load_spec
from rayramid.platform.training.outcome import RunFailedError, StoppedError

if TYPE_CHECKING:
    from rayramid.platform.training.spec.run import RunSpec

# What trains each kind of spec: modules with `dry_run` and `train`.
TRAINERS = {"train": "rayramid.platform.training.run", "vae": "rayramid.platform.training.vae.run"}

STOPPING = "stopping at a checkpoint of the next step; once more stops at once, and goes back to the checkpoint before"


def train(
    spec: SpecFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and what it costs; train nothing.")] = False,
    overrides: Overrides = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Train what a spec describes; run again, it continues from the last checkpoint.

    Ctrl-C or SIGTERM saves the newest step first.

    Examples: rayramid train infra/specs/train-local.yaml (a DiT), rayramid train infra/specs/vae-local.yaml (a VAE)
    """
    loaded = cast("RunSpec", load_spec(spec, overrides or [], kind=tuple(TRAINERS)))
    trainer = importlib.import_module(TRAINERS[loaded.kind])
    if dry_run:
        plan = trainer.dry_run(loaded)
        if as_json:
            emit_json(dataclasses.asdict(plan))
        else:
            result(plan.text())
        return
    say(f"{loaded.steps} steps; what comes of them, in {loaded.output}:")
    for name, place in loaded.places.items():
        say(f"  {name:<11} {place}")
    with connect(address), progress() as update, interruptible(STOPPING) as interruption:
        try:
            done = trainer.train(
                loaded,
                on_progress=partial(update, "steps"),
                stopping=lambda: bool(interruption),
            )
        except StoppedError as stopped:
            say(f"step {stopped.step} is saved" if stopped.step else "no step is saved yet")
            sys.exit(interruption.code)
        except RunFailedError as failed:
            say(f"error: {failed}; the same command goes on from the newest checkpoint")
            sys.exit(FAILED)
    if as_json:
        emit_json(dataclasses.asdict(done))
        return
    for line in done.lines():
        result(line)
