"""`rayramid dashboards`: what Grafana and Prometheus show of rayramid's metrics."""

from pathlib import Path
from typing import Annotated

import typer

from rayramid.models.errors import UserError
from rayramid.platform.console import out, result


def dashboards(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where to write them; overwritten.", show_default=False)
    ] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="Write nothing; print every metric in Markdown.")] = False,
) -> None:
    """Write Grafana dashboards and Prometheus' alert rules, as this version's metrics have them.

    Example: rayramid dashboards observability
    """
    from rayramid.platform.observability.catalogue import table
    from rayramid.platform.observability.files import files

    if metrics:
        out.print(table(), markup=False)
        return
    if folder is None:
        raise UserError("rayramid dashboards: name a folder to write to, or --metrics")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files().items():
            (folder / name).write_text(text, encoding="utf-8")
            result(str(folder / name))
    except OSError as error:
        raise UserError(f"can't write to {folder}: {error.strerror}") from None
