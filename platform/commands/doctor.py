"""`rayramid doctor`: is this machine fit?"""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from rayramid.platform.commands.options import AsJson
from rayramid.platform.console import emit_json, out
from rayramid.platform.exit_codes import FAILED

if TYPE_CHECKING:
    from rayramid.platform.doctor.finding import Finding

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    storage: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A folder or s3:// URL to try; may be given again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: versions, GPUs, codecs, storage, memory, disk, ports; exit code 3 if something won't work.

    Example: rayramid doctor --storage s3://bucket/prefix
    """
    findings = list(_examine(storage or []))
    if as_json:
        emit_json([dataclasses.asdict(finding) for finding in findings])
    else:
        _show(findings)
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(FAILED)


def _examine(places: Sequence[str]) -> "Iterator[Finding]":
    from rayramid.platform.doctor import machine, software, storage

    yield software.python()
    yield software.packages()
    yield from software.gpus()
    yield software.codecs()
    yield software.decoding()
    yield machine.memory()
    yield machine.shared_memory()
    for folder in dict.fromkeys((Path(tempfile.gettempdir()), Path.cwd())):
        yield machine.disk(folder)
    yield machine.open_files()
    yield machine.sockets()
    yield machine.ports()
    for url in places:
        yield storage.place(url)


def _show(findings: "Sequence[Finding]") -> None:
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row(Text(finding.verdict, COLOURS[finding.verdict]), Text(finding.name), Text(finding.found))
        if finding.advice:
            table.add_row("", "", Text(f"-> {finding.advice}"))
    out.print(table)
