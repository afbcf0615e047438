"""Draws every figure of the docs into docs/pictures: `python -m docs.figures`."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from docs.figures import ablation, drift, flow, history, visibility

PICTURES = Path(__file__).parents[1] / "pictures"
FIGURES: Mapping[str, Callable[[], str]] = {
    "drift.svg": drift.figure,
    "flow.svg": flow.figure,
    "history.svg": history.figure,
    "visibility.svg": visibility.figure,
    **{f"ablation-{path.stem}.svg": partial(ablation.figure, path) for path in ablation.RESULTS},
}

if __name__ == "__main__":
    for name, figure in FIGURES.items():
        (PICTURES / name).write_text(figure(), encoding="utf-8")
