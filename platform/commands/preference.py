"""`rayramid preference`: people compare videos side by side, blind."""

from pathlib import Path
from typing import Annotated

import typer

from rayramid.models.errors import UserError
from rayramid.platform.commands.options import AsJson
from rayramid.platform.console import emit_json, result

app = typer.Typer(no_args_is_help=True, help="People compare videos of models side by side, blind.")


@app.command("make")
def make(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the page goes.", show_default=False)],
    models: Annotated[
        list[str],
        typer.Option(
            "--of", metavar="NAME=DIR", help="A model and its videos, or its suite's output.", show_default=False
        ),
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of prompts, sides and order.")] = 0,
    prompts: Annotated[int | None, typer.Option(min=1, help="So many of the prompts; all if left out.")] = None,
) -> None:
    """Write a static page of pairs of videos, and beside its folder the key that stays with you.

    Example: rayramid preference make --out runs/study --of a=runs/suite-a --of b=runs/suite-b
    """
    from rayramid.platform.evaluation.preference.study import make_study

    named = dict(_named(item) for item in models)
    key = make_study(named, out, seed, prompts)
    result(f"page  {out / 'index.html'}")
    result(f"key   {key}")
    result(f"next: rayramid preference count {key} VOTES.json")


@app.command("count")
def count(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="The study's key.", show_default=False)],
    votes: Annotated[
        list[Path], typer.Argument(metavar="VOTES...", help="Exported votes, or folders of them.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Count votes that the page exported: how often each model is preferred.

    Example: rayramid preference count runs/study.key.json votes/
    """
    from rayramid.platform.evaluation.preference import votes as counting
    from rayramid.platform.evaluation.preference.study import Key

    found = counting.count(Key.read(key), counting.load(votes))
    if as_json:
        emit_json(found)
        return
    for line in counting.lines(found):
        result(line)


def _named(item: str) -> tuple[str, Path]:
    name, equals, folder = item.partition("=")
    if not name or not equals or not folder:
        raise UserError(f"--of {item}: write NAME=DIR")
    return name, Path(folder)
