"""Progress on terminals of any width, and in files."""

import io
import re

import pytest
from rich.console import Console

from rayramid.platform import console

NOTE = "short clips  loss 0.207  held out 0.352  939 tokens/s  0:09:07 left  saved 100  videos 100"


@pytest.fixture
def shown(monkeypatch):
    """What stderr shows, on a terminal of so many columns or (None) in a file."""

    def on(width):
        file = io.StringIO()
        monkeypatch.setattr(
            console, "err", Console(file=file, force_terminal=width is not None, width=width, soft_wrap=True)
        )
        return lambda: re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())

    return on


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_bar_and_the_whole_note_below_it(shown, width):
    text = shown(width)
    with console.progress() as update:
        update("steps", 110, 240, NOTE)
        update("videos", 1, 2)
    lines = text().splitlines()
    bar = max(number for number, line in enumerate(lines) if re.search(r"steps +━.* 110/240", line))
    below = lines[bar + 1 :]
    assert " ".join(" ".join(below[:-1]).split()) == " ".join(NOTE.split())
    assert re.search(r"videos +━.* 1/2", below[-1])


def test_a_file_gets_a_line_now_and_then_and_at_the_end(shown):
    text = shown(None)
    with console.progress() as update:
        for step in range(1, 11):
            update("steps", step, 10, f"loss {step}")
    assert text().splitlines() == ["     steps    1/10 loss 1", "     steps    10/10 loss 10"]
