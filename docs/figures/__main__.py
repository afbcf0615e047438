"""Draws every figure of the docs into docs/pictures: `python -m docs.figures`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from docs.figures import flow, history, visibility

PICTURES = Path(__file__).parents[1] / "pictures"
FIGURES: Mapping[str, Callable[[], str]] = {
    "flow.svg": flow.figure,
    "history.svg": history.figure,
    "visibility.svg": visibility.figure,
}

if __name__ == "__main__":
    for name, figure in FIGURES.items():
        (PICTURES / name).write_text(figure(), encoding="utf-8")
