"""What the commands show: results on stdout, progress and messages on stderr."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def say(message: str) -> None:
    """One line of what the program is doing."""
    err.print(message, markup=False)


def result(message: str) -> None:
    """One line of what came out."""
    out.print(message, markup=False)


def emit_json(value: Any) -> None:
    """A result for scripts."""
    out.print(json.dumps(value, indent=2, default=str), markup=False)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr, one per name; yields `update(name, done, total)`."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bars:
        tasks: dict[str, Any] = {}

        def update(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield update
