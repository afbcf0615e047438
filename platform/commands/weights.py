"""`rayramid weights`: released weights in and out; `rayramid plan`: what a configuration costs."""

import dataclasses
from enum import StrEnum
from typing import Annotated

import typer

from rayramid.models.errors import UserError
from rayramid.platform.commands.options import AsJson
from rayramid.platform.console import emit_json, result

app = typer.Typer(no_args_is_help=True, help="Import, export and inspect weights.")
Source = Annotated[str, typer.Argument(metavar="SOURCE", help="A folder or URL.", show_default=False)]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="A folder or URL to write.", show_default=False)]


class Conditioning(StrEnum):
    """What imported weights are to be used as."""

    official = "official"
    shared_context = "shared_context"


class Trained(StrEnum):
    """Which of a run's weights."""

    ema = "ema"
    raw = "raw"


class Format(StrEnum):
    """Of stored weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@app.command("import")
def import_(
    source: Source,
    target: Target,
    variant: Annotated[str | None, typer.Option(help="Which DiT of a release, such as 768p.")] = None,
    conditioning: Annotated[
        Conditioning, typer.Option(help="official repeats the release; shared_context makes initial weights.")
    ] = Conditioning.official,
) -> None:
    """Write a checkpoint folder from a released Pyramid Flow model, or from SD3-medium's transformer.

    Example: rayramid weights import pyramid-flow-miniflux models/miniflux --variant 768p
    """
    from rayramid.models.importers.release import import_weights

    card = import_weights(source, target, variant=variant, conditioning=conditioning.value)
    result(f"{target}: {card.preset}, {card.width}x{card.height}, {card.frames} frames, {card.dit['conditioning']}")


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A run, one of its checkpoints, or a model folder.")],
    target: Target,
    weights: Annotated[Trained, typer.Option(help="Of a checkpoint: the average, or as trained.")] = Trained.ema,
    dtype: Annotated[Format | None, typer.Option(help="Of a checkpoint: the number format to store.")] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Of a run with lora: its adapter alone, in peft's layout.")
    ] = False,
) -> None:
    """Write a model folder from a training run's checkpoint, or a model folder in the released layout.

    Example: rayramid weights export runs/local/train/checkpoints/step-00000100 models/early
    """
    from rayramid.models import storage
    from rayramid.models.card import CARD

    if storage.exists(storage.join(source, CARD)):
        from rayramid.models.importers.release import export_weights

        export_weights(source, target)
        result(target)
        return
    import torch

    from rayramid.platform.training.export import export_adapter, export_checkpoint

    if adapter:
        if dtype is not None:
            raise UserError("--dtype is of whole models; an adapter is kept as it was trained")
        checkpoint = export_adapter(storage.absolute(source), target, weights.value)
        result(f"{target}: step {checkpoint.step}, {weights.value} weights of the adapter")
        return
    stored = None if dtype is None else getattr(torch, dtype.value)
    checkpoint = export_checkpoint(storage.absolute(source), target, weights.value, stored)
    result(f"{target}: step {checkpoint.step}, {weights.value} weights")


@app.command()
def inspect(source: Source, as_json: AsJson = False) -> None:
    """Show what a checkpoint folder, a release or a weight file holds.

    Example: rayramid weights inspect runs/local/train/model
    """
    from rayramid.models.importers.inspect import inspect_weights

    inspection = inspect_weights(source)
    if as_json:
        emit_json(dataclasses.asdict(inspection))
    else:
        result(inspection.text())


def plan(
    preset: Annotated[str, typer.Option(help="sd3-2b, miniflux-2b, small or tiny.")],
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels.")],
    frames: Annotated[int, typer.Option(min=1, help="1 + 8n; 241 are 10 seconds at 24 a second.")],
    as_json: AsJson = False,
) -> None:
    """Show what a configuration costs: tokens, parameters, FLOPs, caches and memory, before renting a GPU.

    Example: rayramid plan --preset miniflux-2b --size 1280x768 --frames 241
    """
    from rayramid.models.brief import parse_size
    from rayramid.models.cost import plan_cost
    from rayramid.models.cost_report import report

    width, height = parse_size(size)
    cost = plan_cost(preset, width, height, frames)
    if as_json:
        emit_json(dataclasses.asdict(cost))
    else:
        result(report(cost))
