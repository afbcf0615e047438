"""What the commands show: results on stdout, progress and messages on stderr."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from rayramid.platform import logs

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)
SECONDS_BETWEEN_LINES = 10.0


def say(message: str) -> None:
    """One line of what the program is doing."""
    err.print(logs.line(message) if logs.are_json() else message, markup=False)


def result(message: str) -> None:
    """One line of what came out."""
    out.print(message, markup=False)


def copy(text: str, console: Console = out) -> None:
    """What another program has written, as it is."""
    # `print` and `out` of rich make spaces of tabs.
    console.file.write(text)
    console.file.flush()


def emit_json(value: Any) -> None:
    """A result for scripts."""
    out.print(json.dumps(value, indent=2, default=str), markup=False)


class Update(Protocol):
    """Moves the bar `name`, which appears with its first update; `note` stands below it."""

    def __call__(self, name: str, done: int, total: int, note: str = "") -> None:
        """Shows `done` of `total`."""


@contextmanager
def progress() -> Iterator[Update]:
    """Bars on stderr, one per name; lines now and then where stderr is no terminal or lines are JSON."""
    if err.is_terminal and not logs.are_json():
        with _bars() as update:
            yield update
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Update]:
    columns = (
        TextColumn("     {task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with _Bars(*columns, console=err) as bars:
        tasks: dict[str, TaskID] = {}

        def update(name: str, done: int, total: int, note: str = "") -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, note=note)
            bars.update(tasks[name], completed=done, total=total, note=note)

        yield update


class _Bars(Progress):
    """Bars with their notes below them."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars and notes, from top to bottom."""
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["note"]:
                yield Padding(Text(task.fields["note"], no_wrap=False, overflow="fold"), (0, 0, 0, 14))


def _lines() -> Update:
    shown: dict[str, float] = {}

    def update(name: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if done >= total or now - shown.get(name, -math.inf) >= SECONDS_BETWEEN_LINES:
            shown[name] = now
            if logs.are_json():
                err.print(logs.line("progress", of=name, done=done, total=total, note=note), markup=False)
                return
            say(f"     {name:<8} {done}/{total} {note}".rstrip())

    return update
