"""`rayramid init`: example specs to start from."""

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from rayramid.models.errors import UserError
from rayramid.platform.console import result


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.", show_default=False)],
) -> None:
    """Write the example specs into DIR, those of ablations in a folder there; no file that exists is overwritten.

    Example: rayramid init my-specs
    """
    specs = {folder / path: spec for path, spec in _specs(resources.files("rayramid.specs"), Path())}
    existing = [str(path.relative_to(folder)) for path in specs if path.exists()]
    if existing:
        raise UserError(f"{folder} already has {', '.join(existing)}; name another folder or move them away")
    try:
        for path, spec in specs.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(spec.read_bytes())
    except OSError as error:
        raise UserError(f"can't write to {folder}: {error.strerror}") from None
    for path in specs:
        result(str(path))
    result(f"next: rayramid data run {folder / 'data-local.yaml'}")


def _specs(folder: Traversable, below: Path) -> Iterator[tuple[Path, Traversable]]:
    """The specs of a folder and then of its folders, by name, each with its path from the first of them."""
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.endswith(".yaml"):
            yield below / entry.name, entry
    for entry in entries:
        if entry.is_dir():
            yield from _specs(entry, below / entry.name)
