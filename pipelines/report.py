"""The report: one self-contained HTML file with the funnel, the thresholds over the scores, clips, failures, books."""

import base64
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from rayramid.models import storage
from rayramid.pipelines import tables
from rayramid.pipelines.curation import Curation
from rayramid.pipelines.ledger import Ledger
from rayramid.pipelines.selection import Limits
from rayramid.pipelines.spec import JOBS, DataSpec

GALLERY = 24
# Clips on either side of a threshold.
NEAR = 6
BINS = 24
PACKAGES = ("rayramid", "ray", "torch", "pyarrow", "decord", "av", "scenedetect-headless")


@dataclass(frozen=True)
class RunFacts:
    """What this run was: when, how long each job took, with which code."""

    created: str
    seconds: Mapping[str, float]
    code: dict[str, str]


@dataclass(frozen=True)
class Bar:
    """A bin of a histogram: its range and how many clips of it are kept and not."""

    low: float
    high: float
    kept: int
    other: int


@dataclass(frozen=True)
class Histogram:
    """A score's distribution, with its thresholds as positions from 0 to 1 where they lie inside."""

    name: str
    bars: tuple[Bar, ...]
    tallest: int
    minimum: float | None
    maximum: float | None
    minimum_at: float | None
    maximum_at: float | None


@dataclass(frozen=True)
class Edge:
    """A threshold with the clips nearest to it: on its good side and beyond it."""

    name: str
    sign: str
    threshold: float
    inside: tuple[dict[str, Any], ...]
    beyond: tuple[dict[str, Any], ...]


def run_facts(seconds: Mapping[str, float]) -> RunFacts:
    """The facts of the run that ends now."""
    found = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    code = {**found, "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    return RunFacts(datetime.now(UTC).isoformat(timespec="seconds"), dict(seconds), code)


def write_report(
    spec: DataSpec, curation: Curation, ledgers: Sequence[Ledger], version: int | None, facts: RunFacts
) -> None:
    """Write `report/index.html` under the root."""
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string(template).render(
        spec=spec,
        spec_yaml=yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False),
        version=version,
        facts=facts,
        ledgers=ledgers,
        fates={fate: curation.count(fate) for fate in ("kept", "rejected", "failed", "pending")},
        funnel=_funnel(curation),
        rules=_rules(curation),
        histograms=histograms(curation.measures, curation.fates, curation.bounds),
        edges=_edges(spec, curation),
        kept=[_card(spec, curation, row) for row in _sample(curation, "kept")],
        rejected=[_card(spec, curation, row) for row in _sample(curation, "rejected")],
        buckets=_buckets(curation),
        codecs=_codecs(curation),
        failures=_failures(curation),
        encoders={"VAE": curation.vae, "text": curation.text},
    )
    storage.write_atomic(storage.join(spec.root, "report", "index.html"), page.encode())


def histograms(measures: pa.Table, fates: pa.Array, bounds: Mapping[str, Limits]) -> list[Histogram]:
    """One for each column that has values."""
    kept = pc.equal(fates, "kept")
    found = []
    for name, column in zip(measures.column_names, measures.columns, strict=True):
        known = column.is_valid()
        values = column.filter(known).to_numpy()
        if len(values):
            found.append(histogram(name, values, kept.filter(known.combine_chunks()).to_numpy(False), bounds[name]))
    return found


def histogram(
    name: str, numbers: NDArray[np.float64], kept: NDArray[np.bool_], bound: Limits, bins: int = BINS
) -> Histogram:
    """The distribution of values, those of kept clips and the others apart."""
    # Equal values have no width to divide: one bar, at the value itself.
    spread = numbers.min() < numbers.max()
    edges = np.histogram_bin_edges(numbers, bins=bins) if spread else np.repeat(numbers.min(), 2)
    kept_counts, _ = np.histogram(numbers[kept], bins=edges)
    other_counts, _ = np.histogram(numbers[~kept], bins=edges)
    low, high = float(edges[0]), float(edges[-1])

    def position(threshold: float | None) -> float | None:
        inside = threshold is not None and low <= threshold <= high and low < high
        return (threshold - low) / (high - low) if inside and threshold is not None else None

    bars = zip(edges[:-1], edges[1:], kept_counts, other_counts, strict=True)
    return Histogram(
        name=name,
        bars=tuple(Bar(float(a), float(b), int(k), int(o)) for a, b, k, o in bars),
        tallest=int((kept_counts + other_counts).max()),
        minimum=bound.min,
        maximum=bound.max,
        minimum_at=position(bound.min),
        maximum_at=position(bound.max),
    )


def nearest(
    values: NDArray[np.float64], threshold: float, *, above: bool, count: int = NEAR
) -> tuple[list[int], list[int]]:
    """The places of the values nearest to a threshold: those that meet it, and those that do not; NaN is neither.

    `above`: it is a lower bound, which values from it upwards meet.
    """
    meets = values >= threshold if above else values <= threshold
    order = np.argsort(np.abs(values - threshold), kind="stable")
    known = order[~np.isnan(values[order])]
    return known[meets[known]][:count].tolist(), known[~meets[known]][:count].tolist()


def _edges(spec: DataSpec, curation: Curation) -> list[Edge]:
    found, measures = [], curation.measures
    for name, bound in curation.bounds.items():
        for sign, threshold in (("≥", bound.min), ("≤", bound.max)):
            if threshold is None:
                continue
            values = measures[name].to_numpy().astype(np.float64)
            sides = nearest(values, threshold, above=sign == "≥")
            cards = [tuple(_card(spec, curation, number) for number in side) for side in sides]
            found.append(Edge(name, sign, threshold, *cards))
    return found


def _funnel(curation: Curation) -> list[tuple[str, int]]:
    ok = {job: int(pc.sum(result["ok"]).as_py() or 0) for job, result in curation.results.items()}
    return [
        ("sources", curation.sources),
        ("clips cut", curation.clips.num_rows),
        ("scored", ok["score"]),
        ("within thresholds", curation.verdicts.num_rows - curation.verdicts["bucket"].null_count),
        ("captioned", ok["caption"]),
        ("encoded", ok["encode"]),
        ("kept", curation.count("kept")),
    ]


def _rules(curation: Curation) -> list[tuple[str, int]]:
    rules = curation.verdicts["rule"].filter(pc.equal(curation.fates, "rejected"))
    return Counter(rules.to_pylist()).most_common()


def _buckets(curation: Curation) -> list[tuple[str, int, int]]:
    kept = pc.equal(curation.fates, "kept")
    pairs = zip(
        curation.verdicts["bucket"].filter(kept).to_pylist(),
        curation.clips["split"].filter(kept).to_pylist(),
        strict=True,
    )
    counts = Counter(pairs)
    return [(name, counts[name, "train"], counts[name, "val"]) for name in sorted({name for name, _ in counts})]


def _codecs(curation: Curation) -> list[tuple[str, int, int]]:
    """Of each codec how many clips are kept and how many are not, the commonest first."""
    pairs = Counter(zip(curation.clips["codec"].to_pylist(), pc.equal(curation.fates, "kept").to_pylist(), strict=True))
    found = [(name, pairs[name, True], pairs[name, False]) for name in sorted({name for name, _ in pairs})]
    return sorted(found, key=lambda codec: -codec[1] - codec[2])


def _failures(curation: Curation) -> list[dict[str, Any]]:
    """By job and class, the most frequent first, each with one message as an example."""
    groups: dict[tuple[str, str], list[str]] = {}
    for job in JOBS:
        for failure in curation.failures[job]:
            groups.setdefault((job, failure.error), []).append(failure.message)
    found = [
        {"job": job, "error": error, "count": len(messages), "example": min(messages)}
        for (job, error), messages in groups.items()
    ]
    return sorted(found, key=lambda group: (-group["count"], group["job"], group["error"]))


def _sample(curation: Curation, fate: str) -> list[int]:
    # Ids are hashes and clips are in their order: the first are a random sample, which stays the same.
    return np.flatnonzero(pc.equal(curation.fates, fate).to_numpy(zero_copy_only=False))[:GALLERY].tolist()


def _card(spec: DataSpec, curation: Curation, number: int) -> dict[str, Any]:
    """What is shown of one clip."""
    results = curation.results
    clip, score, captioned, measures = (
        table.slice(number, 1).to_pylist()[0]
        for table in (curation.clips, results["score"], results["caption"], curation.measures)
    )
    url = storage.join(spec.root, score["file"])
    preview = base64.b64encode(storage.read_range(url, score["preview_offset"], score["preview_length"])).decode()
    caption = tables.found(pa.chunked_array([[captioned["caption_id"]]], pa.string()), curation.captions, "caption_id")
    return {
        "preview": f"data:image/webp;base64,{preview}",
        "name": clip["name"],
        "clip_id": clip["clip_id"],
        "range": f"{clip['start_ms'] / 1000:.2f}–{clip['end_ms'] / 1000:.2f} s",
        "split": clip["split"],
        "bucket": curation.verdicts["bucket"][number].as_py(),
        "reason": curation.reason(number, spec.encode),
        "caption": caption["caption"][0].as_py(),
        "scores": {name: value for name, value in measures.items() if value is not None},
    }


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
