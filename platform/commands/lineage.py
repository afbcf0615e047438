"""`rayramid lineage`: what a video or a model was made from."""

import dataclasses
from typing import Annotated

import typer

from rayramid.platform.commands.options import AsJson
from rayramid.platform.console import emit_json, result


def lineage(
    start: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO", help="An mp4, a video's id (with --store), or a model folder.", show_default=False
        ),
    ],
    store: Annotated[str | None, typer.Option(metavar="URL", help="The endpoint's store, as in its spec.")] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Look below here for the video's model; may be given again."),
    ] = None,
    clips: Annotated[bool, typer.Option("--clips", help="List the clips of each dataset.")] = False,
    as_json: AsJson = False,
) -> None:
    """Trace a video back to its model, run, checkpoint, datasets and their sources; say what of it is gone.

    Example: rayramid lineage sample.mp4 --models runs
    """
    from rayramid.platform.lineage import lineage

    hops = lineage(start, store, models or (), clips=clips)
    if as_json:
        emit_json([dataclasses.asdict(hop) for hop in hops])
        return
    for hop in hops:
        for line in hop.lines():
            result(line)
