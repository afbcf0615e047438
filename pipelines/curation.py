"""What the corpus looks like after the five jobs: every clip with its verdict and its fate.

The walk over the jobs is the same whether work is done (`run`) or only looked up (`plan`); the two differ in `perform`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rayramid.models import storage
from rayramid.pipelines import stages, tables
from rayramid.pipelines.encoders import Encoder
from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.ledger import Ledger
from rayramid.pipelines.outcomes import Outcomes, none_of
from rayramid.pipelines.receipts import Failure
from rayramid.pipelines.removals import Removals
from rayramid.pipelines.selection import (
    CAPTION_FIT,
    Limits,
    limits,
    near_prompts,
    reason_of,
    verdicts,
    without_codecs,
    without_duplicates,
    without_misfits,
    without_prompts,
)
from rayramid.pipelines.spec import SCORES, DataSpec, Encode

Fate = Literal["kept", "rejected", "failed", "pending"]

Perform = Callable[[stages.Work], Outcomes]


class Encoders(Protocol):
    """Gives the dataset's encoders, None where they are not made yet and must not be made now."""

    def text(self) -> Encoder | None:
        """The text encoder."""

    def vae(self, clips: pa.Table) -> Encoder | None:
        """The VAE; a new one is fitted to these clips."""


@dataclass(frozen=True)
class Curation:
    """The whole corpus at one moment.

    Row i of `clips`, `verdicts`, `fates` and of each table in `results` is about the same clip. A result is null where
    there is none (yet); `results` has the jobs after shots, embed by the clip's caption. `captions` has every distinct
    caption once, the empty one too, with the result of embed.
    """

    sources: int
    ledgers: Mapping[str, Ledger]
    failures: Mapping[str, Sequence[Failure]]
    clips: pa.Table
    verdicts: pa.Table
    results: Mapping[str, pa.Table]
    fates: pa.Array
    captions: pa.Table
    bounds: Mapping[str, Limits]
    text: Encoder | None
    vae: Encoder | None

    def count(self, fate: Fate) -> int:
        """Clips of a fate; a source that failed counts as one failed, one not yet cut as one pending."""
        shots = self.ledgers["shots"]
        whole_sources = {"failed": shots.failed, "pending": shots.pending}.get(fate, 0)
        return whole_sources + pc.equal(self.fates, fate).true_count

    @property
    def measures(self) -> pa.Table:
        """Of each clip the numbers that a threshold may bound."""
        return tables.beside(self.results["score"].select(SCORES), self.results["caption"].select([CAPTION_FIT]))

    def reason(self, number: int, encode: Encode) -> str | None:
        """Why the clip of this number is rejected, in words; None if it is not."""
        clip, measures, verdict = (
            table.slice(number, 1).to_pylist()[0] for table in (self.clips, self.measures, self.verdicts)
        )
        return reason_of(clip, measures, verdict, self.bounds, encode)


def walk(spec: DataSpec, sources: pa.Table, removals: Removals, perform: Perform, encoders: Encoders) -> Curation:
    """Go through the five jobs in order, each on what the one before it gave; what was removed takes no part."""
    ledgers: dict[str, Ledger] = {}
    failures: dict[str, Sequence[Failure]] = {}

    def book(found: Outcomes) -> Outcomes:
        ledgers[found.job], failures[found.job] = found.ledger(), found.failures
        return found

    sources = tables.without(sources, "uri", sorted(removals.sources))
    clips = _clips(book(perform(stages.shots_work(spec, sources))).rows, sources, removals)
    ids = clips["clip_id"]
    work = stages.score_work(spec, clips)
    scores = _aligned(ids, "clip_id", work, book(perform(work)))
    bounds = limits(scores, spec.keep, SCORES)
    judged = without_codecs(verdicts(clips, scores, bounds, spec.encode), clips, spec.keep.codecs)
    judged = without_duplicates(judged, clips, scores, spec.duplicates)

    work = stages.caption_work(spec, clips.filter(judged["bucket"].is_valid()))
    found = book(perform(work))
    captions = _distinct_captions(found.rows)
    # The texts stay apart: those of millions of clips are what takes most room.
    captioned = _aligned(ids, "clip_id", work, replace(found, rows=found.rows.drop(["caption", "short"])))
    near = near_prompts(captions, read_prompts(spec.duplicates.prompts), spec.duplicates.prompt_words)
    judged = without_prompts(judged, captioned, near)
    fits = limits(captioned, spec.keep, [CAPTION_FIT])
    judged = without_misfits(judged, captioned, fits[CAPTION_FIT])
    text = encoders.text()
    embedding = stages.embed_work(spec.root, captions, text) if text else None
    found = book(perform(embedding) if embedding else none_of("embed", captions.num_rows, stages.RESULTS["embed"]))
    captions = tables.beside(captions, _aligned(captions["caption_id"], "caption_id", embedding, found))
    embedded = _embedded(captioned, captions.select(["caption_id", "text_len", "ok", "failed"]))

    ready = pc.and_(captioned["ok"], judged["bucket"].is_valid())
    bucketed = stages.bucketed(spec, clips.filter(ready), judged.filter(ready))
    vae = encoders.vae(bucketed) if bucketed.num_rows else None
    encoding = stages.encode_work(spec, bucketed, vae) if vae else None
    found = book(perform(encoding) if encoding else none_of("encode", bucketed.num_rows, stages.RESULTS["encode"]))
    latents = _aligned(ids, "clip_id", encoding, found)
    results = {"score": scores, "caption": captioned, "embed": embedded, "encode": latents}
    return Curation(
        sources=sources.num_rows,
        ledgers=ledgers,
        failures=failures,
        clips=clips,
        verdicts=judged,
        results=results,
        fates=_fates(judged, scores["ok"], results.values()),
        captions=captions,
        bounds={**bounds, **fits},
        text=text,
        vae=vae,
    )


def read_prompts(url: str | None) -> list[str]:
    """The lines of a file that are not empty; none without a file."""
    if url is None:
        return []
    return [line.strip() for line in storage.read_bytes(url).decode().splitlines() if line.strip()]


def _clips(cut: pa.Table, sources: pa.Table, removals: Removals) -> pa.Table:
    """The clips that the shots job cut, sorted, each with what its source says.

    What may change without a new cut (name, split, licence, caption) is taken from the sources as listed now; clips of
    one source share it.
    """
    cut = tables.without(cut, "clip_id", sorted(removals.clips)).sort_by("clip_id")
    place = pc.index_in(cut["source_id"], value_set=sources["source_id"]).combine_chunks()
    shared = {
        "source_caption" if name == "caption" else name: pa.DictionaryArray.from_arrays(
            place, sources[name].combine_chunks()
        )
        for name in sources.column_names
        # The range that a list named was for the cut alone; a clip has its own.
        if name not in ("from_ms", "to_ms")
    }
    own = {name: cut[name] for name in stages.RESULTS["shots"].names if name not in shared}
    return pa.table({**own, **shared})


def _aligned(keys: pa.ChunkedArray, key: str, work: stages.Work | None, outcomes: Outcomes) -> pa.Table:
    """The results of the items with these keys, in their order: `ok`, `failed`, and the columns of the result."""
    items = work.items if work else pa.table({"item_id": pa.array([], pa.string()), key: pa.array([], keys.type)})
    ids = tables.found(keys, items.select(["item_id", key]), key)["item_id"]
    rows = tables.found(ids, outcomes.rows, "item_id")
    failed = tables.within(ids, [failure.item_id for failure in outcomes.failures])
    return rows.drop(["item_id"]).append_column("ok", rows["item_id"].is_valid()).append_column("failed", failed)


def _distinct_captions(captioned: pa.Table) -> pa.Table:
    """`caption_id` and `caption`, each once, long and short ones, and always the empty one."""
    columns = captioned.select(["caption_id", "caption"])
    short = captioned.select(["short_id", "short"]).rename_columns(columns.column_names)
    empty = pa.Table.from_pylist([{"caption_id": caption_id(""), "caption": ""}], schema=columns.schema)
    every = pa.concat_tables([empty, columns, short.filter(short["caption_id"].is_valid())])
    return tables.distinct(every, "caption_id")


def _embedded(captioned: pa.Table, captions: pa.Table) -> pa.Table:
    """How the captions of each clip were embedded: `text_len`, `short_len`; ok if all of them are."""
    long_one = tables.found(captioned["caption_id"], captions, "caption_id")
    short = tables.found(captioned["short_id"], captions, "caption_id")
    without = _flags(captioned["short_id"].is_null())
    flags = {
        "ok": _flags(long_one["ok"]) & (without | _flags(short["ok"])),
        "failed": _flags(long_one["failed"]) | _flags(short["failed"]),
    }
    lengths = {"text_len": long_one["text_len"], "short_len": short["text_len"]}
    return pa.table({**lengths, **{name: pa.array(values) for name, values in flags.items()}})


def _fates(judged: pa.Table, scored: pa.ChunkedArray, results: Iterable[pa.Table]) -> pa.Array:
    """Every clip has exactly one."""
    flags = [[_flags(result[name]) for name in ("failed", "ok")] for result in results]
    failed = np.logical_or.reduce([failed for failed, _ in flags])
    ready = np.logical_and.reduce([ok for _, ok in flags])
    rejected = _flags(scored) & _flags(judged["bucket"].is_null())
    return pa.array(np.select([failed, rejected, ready], ["failed", "rejected", "kept"], "pending"), pa.string())


def _flags(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return column.fill_null(False).to_numpy()
