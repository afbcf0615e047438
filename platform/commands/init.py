"""`rayramid init`: example specs to start from."""

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from rayramid.models.errors import UserError
from rayramid.platform.console import result


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.", show_default=False)],
) -> None:
    """Write the example specs into DIR; a file that exists is never overwritten.

    Example: rayramid init my-specs
    """
    specs = sorted(
        (entry for entry in resources.files("rayramid.specs").iterdir() if entry.name.endswith(".yaml")),
        key=lambda entry: entry.name,
    )
    existing = [entry.name for entry in specs if (folder / entry.name).exists()]
    if existing:
        raise UserError(f"{folder} already has {', '.join(existing)}; name another folder or move them away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in specs:
            (folder / entry.name).write_bytes(entry.read_bytes())
    except OSError as error:
        raise UserError(f"can't write to {folder}: {error.strerror}") from None
    for entry in specs:
        result(str(folder / entry.name))
    result(f"next: rayramid data run {folder / 'data-local.yaml'}")
