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
import yaml

from rayramid.models import storage
from rayramid.pipelines.curation import Curated, Curation
from rayramid.pipelines.identity import digest
from rayramid.pipelines.ledger import Ledger
from rayramid.pipelines.selection import Limits
from rayramid.pipelines.spec import JOBS, DataSpec, Keep

SCORES = tuple(Keep.model_fields)
GALLERY = 24
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
        histograms=histograms(curation.clips, curation.bounds),
        kept=[_card(spec.root, clip) for clip in _sample(curation.clips, "kept")],
        rejected=[_card(spec.root, clip) for clip in _sample(curation.clips, "rejected")],
        buckets=_buckets(curation),
        failures=_failures(curation),
        encoders={"VAE": curation.vae, "text": curation.text},
    )
    storage.write_atomic(storage.join(spec.root, "report", "index.html"), page.encode())


def histograms(clips: Sequence[Curated], bounds: Mapping[str, Limits]) -> list[Histogram]:
    """One for each score that has values."""
    found = []
    for name in SCORES:
        scored = [(clip.score.row[name], clip.fate == "kept") for clip in clips if clip.score.row is not None]
        values = [(value, kept) for value, kept in scored if value is not None]
        if values:
            found.append(histogram(name, values, bounds[name]))
    return found


def histogram(name: str, values: Sequence[tuple[float, bool]], bound: Limits, bins: int = BINS) -> Histogram:
    """The distribution of (value, kept) pairs."""
    numbers = np.array([value for value, _ in values])
    kept = np.array([flag for _, flag in values])
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


def _funnel(curation: Curation) -> list[tuple[str, int]]:
    clips = curation.clips
    return [
        ("sources", len(curation.sources)),
        ("clips cut", len(clips)),
        ("scored", sum(clip.score.row is not None for clip in clips)),
        ("within thresholds", sum(clip.verdict is not None and clip.verdict.bucket is not None for clip in clips)),
        ("captioned", sum(clip.caption.row is not None for clip in clips)),
        ("encoded", sum(clip.latent.row is not None for clip in clips)),
        ("kept", curation.count("kept")),
    ]


def _rules(curation: Curation) -> list[tuple[str, int]]:
    verdicts = [clip.verdict for clip in curation.clips if clip.fate == "rejected"]
    return Counter(str(verdict.rule) for verdict in verdicts if verdict is not None).most_common()


def _buckets(curation: Curation) -> list[tuple[str, int, int]]:
    splits: dict[str, Counter[str]] = {}
    for clip in curation.clips:
        if clip.fate == "kept" and clip.verdict is not None and clip.verdict.bucket is not None:
            splits.setdefault(clip.verdict.bucket.name, Counter())[clip.clip["split"]] += 1
    return [(name, counts["train"], counts["val"]) for name, counts in sorted(splits.items())]


def _failures(curation: Curation) -> list[dict[str, Any]]:
    """By job and class, the most frequent first, each with one message as an example."""
    groups: dict[tuple[str, str], list[str]] = {}
    for job in JOBS:
        for failure in curation.jobs[job].failures:
            groups.setdefault((job, failure.error), []).append(failure.message)
    found = [
        {"job": job, "error": error, "count": len(messages), "example": min(messages)}
        for (job, error), messages in groups.items()
    ]
    return sorted(found, key=lambda group: (-group["count"], group["job"], group["error"]))


def _sample(clips: Sequence[Curated], fate: str) -> list[Curated]:
    # A fixed sample: the same clips are shown as long as they are there.
    candidates = [clip for clip in clips if clip.fate == fate]
    return sorted(candidates, key=lambda clip: digest("gallery", clip.clip["clip_id"]))[:GALLERY]


def _card(root: str, clip: Curated) -> dict[str, Any]:
    assert clip.score.outcome is not None
    assert clip.score.row is not None
    assert clip.verdict is not None
    place = clip.score.outcome.facts["preview"]
    url = storage.join(root, clip.score.outcome.file)
    preview = base64.b64encode(storage.read_range(url, place["offset"], place["length"])).decode()
    return {
        "preview": f"data:image/webp;base64,{preview}",
        "name": clip.clip["name"],
        "clip_id": clip.clip["clip_id"],
        "range": f"{clip.clip['start_ms'] / 1000:.2f}–{clip.clip['end_ms'] / 1000:.2f} s",
        "split": clip.clip["split"],
        "bucket": clip.verdict.bucket.name if clip.verdict.bucket else None,
        "reason": clip.verdict.reason,
        "caption": clip.caption.row["caption"] if clip.caption.row else None,
        "scores": {name: clip.score.row[name] for name in SCORES if clip.score.row[name] is not None},
    }


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
