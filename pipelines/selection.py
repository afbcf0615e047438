"""Which clips are kept. Computed from stored scores whenever they are read, so a new threshold decodes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rayramid.pipelines.buckets import Bucket, NoBucketError, choose
from rayramid.pipelines.job import Row
from rayramid.pipelines.spec import Bound, Encode, Keep


@dataclass(frozen=True)
class Limits:
    """A bound with its quantiles worked out."""

    min: float | None
    max: float | None


@dataclass(frozen=True)
class Verdict:
    """A clip's bucket, or the rule that rejected it and why."""

    bucket: Bucket | None
    rule: str | None = None
    reason: str | None = None


def limits(scores: Sequence[Row], keep: Keep) -> dict[str, Limits]:
    """The thresholds as numbers; quantiles are over these scores."""
    found = {}
    for name in Keep.model_fields:
        bound: Bound = getattr(keep, name)
        values = [row[name] for row in scores if row[name] is not None]
        found[name] = Limits(_number(bound.min, values), _number(bound.max, values))
    return found


def judge(clip: Row, scores: Row, bounds: Mapping[str, Limits], encode: Encode) -> Verdict:
    """Whether a clip is kept; the first rule that it breaks rejects it. A score that is null breaks none."""
    broken = broken_rule(scores, bounds)
    if broken is not None:
        return broken
    duration_ms = None if clip["kind"] == "image" else clip["end_ms"] - clip["start_ms"]
    try:
        bucket = choose(
            clip["width"],
            clip["height"],
            duration_ms,
            encode.sizes,
            encode.frames,
            encode.fps,
            encode.max_upscale,
        )
    except NoBucketError as error:
        return Verdict(None, "bucket", str(error))
    return Verdict(bucket)


def broken_rule(scores: Row, bounds: Mapping[str, Limits]) -> Verdict | None:
    """The rejection by the first threshold that is not met; None if all are. A score that is null breaks none."""
    for name, bound in bounds.items():
        value = scores[name]
        if value is None:
            continue
        if bound.min is not None and value < bound.min:
            return Verdict(None, name, f"{name} {value:.4g} < {bound.min:.4g}")
        if bound.max is not None and value > bound.max:
            return Verdict(None, name, f"{name} {value:.4g} > {bound.max:.4g}")
    return None


def _number(threshold: float | str | None, values: Sequence[float]) -> float | None:
    if isinstance(threshold, str):
        share = float(threshold.removeprefix("quantile:"))
        return float(np.quantile(values, share)) if values else None
    return threshold
