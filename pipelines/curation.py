"""What the corpus looks like after the five jobs: every clip with its verdict and its fate.

The walk over the jobs is the same whether work is done (`run`) or only looked up (`plan`); the two differ in `perform`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rayramid.pipelines import stages
from rayramid.pipelines.encoders import Encoder
from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.job import Row
from rayramid.pipelines.outcomes import Outcome, Outcomes
from rayramid.pipelines.removals import Removals
from rayramid.pipelines.selection import Limits, Verdict, judge, limits
from rayramid.pipelines.sources import SourceFile
from rayramid.pipelines.spec import DataSpec, JobName

Fate = Literal["kept", "rejected", "failed", "pending"]

Perform = Callable[[stages.Work], Outcomes]


class Encoders(Protocol):
    """Gives the dataset's encoders, None where they are not made yet and must not be made now."""

    def text(self) -> Encoder | None:
        """The text encoder."""

    def vae(self, clips: Sequence[Row]) -> Encoder | None:
        """The VAE; a new one is fitted to these clips."""


@dataclass(frozen=True)
class Result:
    """One item of a job: no outcome yet, or an outcome with its row, or a failure without one."""

    outcome: Outcome | None = None
    row: Row | None = None

    @property
    def failed(self) -> bool:
        """The item was tried and failed."""
        return self.outcome is not None and self.outcome.failure is not None


PENDING = Result()


@dataclass(frozen=True)
class Curated:
    """One clip: its row of the shots job and what each later job made of it."""

    clip: Row
    score: Result = PENDING
    verdict: Verdict | None = None
    caption: Result = PENDING
    text: Result = PENDING
    latent: Result = PENDING

    @property
    def fate(self) -> Fate:
        """Every clip has exactly one."""
        results = (self.score, self.caption, self.text, self.latent)
        if any(result.failed for result in results):
            return "failed"
        if self.verdict is not None and self.verdict.bucket is None:
            return "rejected"
        return "pending" if any(result.row is None for result in results) else "kept"


@dataclass(frozen=True)
class Curation:
    """The whole corpus at one moment."""

    sources: Sequence[SourceFile]
    jobs: Mapping[JobName, Outcomes]
    clips: Sequence[Curated]
    texts: Mapping[str, Result]
    bounds: Mapping[str, Limits]
    text: Encoder | None
    vae: Encoder | None

    def count(self, fate: Fate) -> int:
        """Clips of a fate; a source that failed counts as one failed, one not yet cut as one pending."""
        shots = self.jobs["shots"].ledger()
        whole_sources = {"failed": shots.failed, "pending": shots.pending}.get(fate, 0)
        return whole_sources + sum(clip.fate == fate for clip in self.clips)


def walk(
    spec: DataSpec, sources: Sequence[SourceFile], removals: Removals, perform: Perform, encoders: Encoders
) -> Curation:
    """Go through the five jobs in order, each on what the one before it gave; what was removed takes no part."""
    jobs: dict[JobName, Outcomes] = {}

    def results(work: stages.Work, key: str) -> dict[str, Result]:
        outcomes = jobs[work.job] = perform(work)
        return {
            item.row[key]: Result(
                outcomes.by_item.get(item.item_id), next(iter(outcomes.rows.get(item.item_id, [])), None)
            )
            for item in work.items
        }

    sources = [source for source in sources if source.uri not in removals.sources]
    jobs["shots"] = perform(stages.shots_work(spec, sources))
    clips = {id_: clip for id_, clip in _clips(jobs["shots"], sources).items() if id_ not in removals.clips}
    scores = results(stages.score_work(spec, clips.values()), "clip_id")
    scored = {clip_id: result.row for clip_id, result in scores.items() if result.row is not None}
    bounds = limits(list(scored.values()), spec.keep)
    verdicts = {clip_id: judge(clips[clip_id], row, bounds, spec.encode) for clip_id, row in scored.items()}
    buckets = {clip_id: verdict.bucket for clip_id, verdict in verdicts.items() if verdict.bucket is not None}

    captions = results(stages.caption_work(spec, [clips[clip_id] for clip_id in buckets]), "clip_id")
    captioned = {clip_id: result.row for clip_id, result in captions.items() if result.row is not None}
    distinct = {"", *(row["caption"] for row in captioned.values())}
    text = encoders.text()
    jobs["embed"] = Outcomes("embed", len(distinct), {})
    texts = results(stages.embed_work(spec.root, distinct, text), "caption_id") if text else {}

    bucketed = [stages.bucketed(spec, clips[clip_id], buckets[clip_id]) for clip_id in captioned]
    vae = encoders.vae(bucketed) if bucketed else None
    jobs["encode"] = Outcomes("encode", len(bucketed), {})
    latents = results(stages.encode_work(spec, bucketed, vae), "clip_id") if vae else {}
    return Curation(
        sources=sources,
        jobs=jobs,
        clips=[
            Curated(
                clip=clip,
                score=scores[clip_id],
                verdict=verdicts.get(clip_id),
                caption=captions.get(clip_id, PENDING),
                text=texts.get(captioned[clip_id]["caption_id"], PENDING) if clip_id in captioned else PENDING,
                latent=latents.get(clip_id, PENDING),
            )
            for clip_id, clip in clips.items()
        ],
        texts=texts,
        bounds=bounds,
        text=text,
        vae=vae,
    )


def empty_text(curation: Curation) -> Result:
    """The empty prompt's embedding."""
    return curation.texts.get(caption_id(""), PENDING)


def _clips(shots: Outcomes, sources: Sequence[SourceFile]) -> dict[str, Row]:
    # What may change without a new cut (name, split, licence, caption) is taken from the sources as listed now.
    known = {source.source_id: source for source in sources}
    clips = {}
    for rows in shots.rows.values():
        for row in rows:
            source = known[row["source_id"]]
            now = {
                "name": source.name,
                "split": source.split,
                "licence": source.licence,
                "source_caption": source.caption,
            }
            clips[row["clip_id"]] = {**{k: v for k, v in row.items() if k not in OUTCOME_COLUMNS}, **now}
    return dict(sorted(clips.items()))


OUTCOME_COLUMNS = frozenset(["item_id", "status", "error", "message"])
