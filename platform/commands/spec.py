"""`rayramid spec`: check specs before they run, and their schema for editors."""

from pathlib import Path
from typing import Annotated

import typer

from rayramid.platform.commands.options import Overrides
from rayramid.platform.console import emit_json, result
from rayramid.platform.spec import KINDS, load_spec, spec_model

app = typer.Typer(no_args_is_help=True, help="Check specs and print their schema.")


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", show_default=False)], overrides: Overrides = None
) -> None:
    """Check that each FILE is a valid spec.

    Example: rayramid spec check infra/specs/*.yaml
    """
    for file in files:
        spec = load_spec(file, overrides or [])
        result(f"{file}: a valid spec of kind '{spec.model_dump()['kind']}'")


@app.command()
def schema(
    kind: Annotated[
        str,
        typer.Argument(help=f"One of {', '.join(KINDS)}.", show_default=False, autocompletion=lambda: list(KINDS)),
    ],
) -> None:
    """Print the JSON Schema of a KIND of spec, for an editor's completion.

    Example: rayramid spec schema train > train.schema.json
    """
    emit_json(spec_model(kind, where="rayramid spec schema").model_json_schema())
