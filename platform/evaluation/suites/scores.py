"""Result files of VBench and EvalCrafter read back, beside what the paper reports."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.evaluation.suites import published

Benchmark = Literal["VBench", "EvalCrafter"]
COLUMNS: Mapping[Benchmark, tuple[str, ...]] = {
    "VBench": published.VBENCH_COLUMNS,
    "EvalCrafter": published.EVALCRAFTER_COLUMNS,
}
PAPER: Mapping[Benchmark, published.Rows] = {"VBench": published.VBENCH, "EvalCrafter": published.EVALCRAFTER}

# Lowest and highest of each dimension, by which VBench's scripts/constant.py normalises.
QUALITY = {
    "subject_consistency": (0.1462, 1.0),
    "background_consistency": (0.2615, 1.0),
    "temporal_flickering": (0.6293, 1.0),
    "motion_smoothness": (0.706, 0.9975),
    "aesthetic_quality": (0.0, 1.0),
    "imaging_quality": (0.0, 1.0),
    "dynamic_degree": (0.0, 1.0),
}
SEMANTIC = {
    "object_class": (0.0, 1.0),
    "multiple_objects": (0.0, 1.0),
    "human_action": (0.0, 1.0),
    "color": (0.0, 1.0),
    "spatial_relationship": (0.0, 1.0),
    "scene": (0.0, 0.8222),
    "appearance_style": (0.0009, 0.2855),
    "temporal_style": (0.0, 0.364),
    "overall_consistency": (0.0, 0.364),
}
# Every other dimension weighs 1.
WEIGHTS = {"dynamic_degree": 0.5}
QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4, 1

EVALCRAFTER_LINE = re.compile(
    r"Results: Visual Quality (?P<visual>-?[\d.]+), Text-Video Alignment (?P<text>-?[\d.]+),"
    r" Motion Quality (?P<motion>-?[\d.]+), Temporal Consistency (?P<temporal>-?[\d.]+), Total (?P<total>-?[\d.]+)"
)


@dataclass(frozen=True)
class Scores:
    """A model's row: its benchmark, its values in that benchmark's COLUMNS, and every score that was read.

    A value is None where dimensions that it is made of were not scored; those are `missing`.
    """

    benchmark: Benchmark
    row: tuple[float | None, ...]
    raw: Mapping[str, float]
    missing: tuple[str, ...] = ()


def read_scores(url: str) -> Scores:
    """What a benchmark wrote: a file, or a folder that has VBench's `*_eval_results.json` or `final_result.txt`.

    Raises:
        UserError: neither is there, or it says nothing.
    """
    vbench = [url] if url.endswith(".json") else sorted(storage.list_files(url, "_eval_results.json"))
    if vbench:
        return of_vbench({name: score for file in vbench for name, score in _dimensions(file).items()})
    evalcrafter = url if url.endswith(".txt") else storage.join(url, "final_result.txt")
    if storage.exists(evalcrafter):
        return of_evalcrafter(storage.read_bytes(evalcrafter).decode("utf-8"), evalcrafter)
    raise UserError(f"{url}: neither VBench's *_eval_results.json nor EvalCrafter's final_result.txt here")


def of_vbench(raw: Mapping[str, float]) -> Scores:
    """VBench's total, quality and semantic scores of its dimensions (0 to 1), as scripts/cal_final_score.py has them.

    That script counts a dimension that was not scored as 0; here what it belongs to has no value.
    """
    quality, semantic = _weighted(raw, QUALITY), _weighted(raw, SEMANTIC)
    total = None
    if quality is not None and semantic is not None:
        total = (quality * QUALITY_WEIGHT + semantic * SEMANTIC_WEIGHT) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)
    row = (total, quality, semantic, raw.get("motion_smoothness"), raw.get("dynamic_degree"))
    return Scores(
        "VBench",
        tuple(None if value is None else 100 * value for value in row),
        dict(raw),
        tuple(name for name in (*QUALITY, *SEMANTIC) if name not in raw),
    )


def of_evalcrafter(text: str, where: str) -> Scores:
    """The last line of results in EvalCrafter's `final_result.txt`."""
    found = list(EVALCRAFTER_LINE.finditer(text))
    if not found:
        raise UserError(f"{where}: no line 'Results: Visual Quality …' here; EvalCrafter's start.sh ends by writing it")
    values = {name: float(value) for name, value in found[-1].groupdict().items()}
    return Scores(
        "EvalCrafter", tuple(values[name] for name in ("total", "visual", "text", "motion", "temporal")), values
    )


def table(rows: Mapping[str, Scores], benchmark: Benchmark) -> list[str]:
    """The paper's rows of a benchmark and then one's own, as aligned lines of text."""
    cells = [["", *COLUMNS[benchmark]]]
    cells += [[name, *map(_cell, row)] for name, row in PAPER[benchmark].items()]
    cells += [[name, *map(_cell, of.row)] for name, of in rows.items() if of.benchmark == benchmark]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [_aligned(line, widths) for line in cells]


def _dimensions(url: str) -> dict[str, float]:
    """By dimension the first of what VBench wrote, which is the mean; the second are single videos."""
    written: Any = json.loads(storage.read_bytes(url))
    if not isinstance(written, dict) or not all(isinstance(value, list) and value for value in written.values()):
        raise UserError(f"{url}: not a VBench result, which is a list by dimension")
    return {name: float(value[0]) for name, value in written.items()}


def _weighted(raw: Mapping[str, float], dimensions: Mapping[str, tuple[float, float]]) -> float | None:
    if not dimensions.keys() <= raw.keys():
        return None
    weights = {name: WEIGHTS.get(name, 1.0) for name in dimensions}
    normalised = {name: (raw[name] - low) / (high - low) for name, (low, high) in dimensions.items()}
    return sum(weights[name] * normalised[name] for name in dimensions) / sum(weights.values())


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    name, *values = line
    padded = "  ".join(value.rjust(width) for value, width in zip(values, widths[1:], strict=True))
    return f"{name.ljust(widths[0])}  {padded}"
