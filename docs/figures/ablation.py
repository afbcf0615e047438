"""The figures of the ablations, from their results."""

import json
from pathlib import Path

from rayramid.platform.ablation import figure as ablation

RESULTS = sorted((Path(__file__).parents[1] / "results" / "ablations").glob("*.json"))


def figure(path: Path) -> str:
    """The SVG of one result."""
    return ablation.figure(json.loads(path.read_text(encoding="utf-8")))
