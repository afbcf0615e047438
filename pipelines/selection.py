"""Which clips are kept. Computed from stored scores whenever they are read, so a new threshold decodes nothing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayramid.pipelines import tables
from rayramid.pipelines.buckets import Bucket, NoBucketError, choose
from rayramid.pipelines.duplicates import groups, keepers
from rayramid.pipelines.job import Row
from rayramid.pipelines.spec import Bound, Duplicates, Encode, Thresholds

# A clip is judged by these columns beside its scores.
JUDGED = ["kind", "width", "height", "start_ms", "end_ms"]

VERDICTS = pa.schema(
    [
        ("bucket", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("frames", pa.int32()),
        ("rule", pa.string()),
        # The clip that is kept instead.
        ("twin", pa.string()),
    ]
)

# Rules that a clip breaks by what other clips are: it shows what one of the same split, or of val, shows.
DUPLICATE, LEAK = "duplicate", "val_leak"
# By what its caption is: near a prompt that models are judged by, or far from what the clip shows.
PROMPT, CAPTION_FIT = "eval_prompt", "caption_fit"
# By how its file is coded.
CODEC = "codec"


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


def limits(scores: pa.Table, keep: Thresholds, names: Iterable[str]) -> dict[str, Limits]:
    """The thresholds on these columns as numbers; quantiles are over their values."""
    found = {}
    for name in names:
        bound: Bound = getattr(keep, name)
        found[name] = Limits(_number(bound.min, scores[name]), _number(bound.max, scores[name]))
    return found


def verdicts(clips: pa.Table, scores: pa.Table, bounds: Mapping[str, Limits], encode: Encode) -> pa.Table:
    """What `judge` says of each clip and its row of scores, as rows of VERDICTS; nulls where it has no score yet."""
    pairs = zip(tables.rows_of(clips.select(JUDGED)), tables.rows_of(scores), strict=True)
    rows = (_verdict_row(judge(clip, row, bounds, encode)) if row["ok"] else {} for clip, row in pairs)
    batches = [
        pa.RecordBatch.from_pylist(some, schema=VERDICTS) for some in iter(lambda: list(islice(rows, tables.BATCH)), [])
    ]
    return pa.Table.from_batches(batches, VERDICTS)


def without_codecs(judged: pa.Table, clips: pa.Table, codecs: Sequence[str] | None) -> pa.Table:
    """The verdicts, those of videos of other codecs turned into rejections."""
    return judged if codecs is None else _rejected(judged, pc.invert(of_codecs(clips, codecs)), CODEC)


def of_codecs(clips: pa.Table, codecs: Sequence[str]) -> pa.ChunkedArray:
    """Which clips are of files coded so; still pictures always are."""
    return pc.or_(tables.within(clips["codec"], codecs), pc.equal(clips["kind"], "image"))


def without_duplicates(judged: pa.Table, clips: pa.Table, scores: pa.Table, duplicates: Duplicates) -> pa.Table:
    """The verdicts, those of clips that show what a better one shows turned into rejections.

    Clips that a threshold rejected take no part. Where val and train show the same, train gives way.
    """
    if not duplicates.compared:
        return judged
    val = np.array(clips["split"].to_pylist()) == "val"
    labels = groups(scores, judged["bucket"].is_valid().to_numpy(), duplicates)
    kept = keepers(labels, scores, val)
    ids = clips["clip_id"].to_pylist()
    rows = judged.to_pylist()
    for place in np.flatnonzero(kept != np.arange(len(kept))).tolist():
        leak = bool(val[kept[place]] and not val[place])
        rows[place] = {"rule": LEAK if leak else DUPLICATE, "twin": ids[kept[place]]}
    return pa.Table.from_pylist(rows, schema=VERDICTS)


def without_prompts(judged: pa.Table, captioned: pa.Table, near: Sequence[str]) -> pa.Table:
    """The verdicts, those of clips that have one of these captions, by id, turned into rejections."""
    if not near:
        return judged
    return _rejected(
        judged, pc.or_(*(tables.within(captioned[name], near) for name in ("caption_id", "short_id"))), PROMPT
    )


def without_misfits(judged: pa.Table, captioned: pa.Table, bound: Limits) -> pa.Table:
    """The verdicts, those of clips whose written caption does not fit them within this bound turned into rejections."""
    broken = tables.computed(
        captioned, [CAPTION_FIT], lambda fit: broken_bound(CAPTION_FIT, fit, bound) is not None, pa.bool_()
    )
    return _rejected(judged, broken, CAPTION_FIT)


def near_prompts(captions: pa.Table, prompts: Sequence[str], share: float) -> list[str]:
    """The ids of captions that have so large a share of words in common with a prompt, of all words of both."""
    wanted = [words for words in map(_words, prompts) if words]
    found = []
    for row in tables.rows_of(captions.select(["caption_id", "caption"])):
        words = _words(row["caption"])
        if any(len(words & prompt) >= share * len(words | prompt) for prompt in wanted):
            found.append(row["caption_id"])
    return found


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


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


def reason_of(clip: Row, measures: Row, verdict: Row, bounds: Mapping[str, Limits], encode: Encode) -> str | None:
    """Why a clip has this verdict, in words; None if it is not rejected."""
    rule = verdict["rule"]
    if rule == PROMPT:
        return f"{PROMPT}: its caption is near a prompt that models are judged by"
    if rule == CODEC:
        return f"{CODEC}: {clip['codec']} is not among those of keep.codecs"
    if rule == CAPTION_FIT:
        return broken_bound(CAPTION_FIT, measures[CAPTION_FIT], bounds[CAPTION_FIT])
    if verdict["twin"] is not None:
        return f"{rule}: shows what {verdict['twin']} shows"
    return judge(clip, measures, bounds, encode).reason


def broken_rule(scores: Row, bounds: Mapping[str, Limits]) -> Verdict | None:
    """The rejection by the first threshold that is not met; None if all are. A score that is null breaks none."""
    for name, bound in bounds.items():
        reason = broken_bound(name, scores[name], bound)
        if reason is not None:
            return Verdict(None, name, reason)
    return None


def broken_bound(name: str, value: float | None, bound: Limits) -> str | None:
    """Which side of a bound a value is beyond, in words; None if it is within, or null."""
    if value is not None and bound.min is not None and value < bound.min:
        return f"{name} {value:.4g} < {bound.min:.4g}"
    if value is not None and bound.max is not None and value > bound.max:
        return f"{name} {value:.4g} > {bound.max:.4g}"
    return None


def _rejected(judged: pa.Table, out: pa.ChunkedArray, rule: str) -> pa.Table:
    """The verdicts, those of kept clips that are out turned into rejections by a rule."""
    gone = pc.and_(out, judged["bucket"].is_valid())
    columns = {}
    for field in VERDICTS:
        value = pa.scalar(rule if field.name == "rule" else None, field.type)
        columns[field.name] = pc.if_else(gone, value, judged[field.name])
    return pa.table(columns)


def _verdict_row(verdict: Verdict) -> Row:
    bucket = verdict.bucket
    if bucket is None:
        return {"rule": verdict.rule}
    return {"bucket": bucket.name, "height": bucket.height, "width": bucket.width, "frames": bucket.frames}


def _number(threshold: float | str | None, scores: pa.ChunkedArray) -> float | None:
    if isinstance(threshold, str):
        share = float(threshold.removeprefix("quantile:"))
        values = scores.drop_null().to_numpy()
        return float(np.quantile(values, share)) if len(values) else None
    return threshold
