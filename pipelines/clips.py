"""The clips below a root as they are now: for those who want pixels, not latents."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from rayramid.models.errors import UserError
from rayramid.pipelines import tables
from rayramid.pipelines.job import Row
from rayramid.pipelines.outcomes import outcomes_of
from rayramid.pipelines.plan import read_plans
from rayramid.pipelines.removals import read_removals
from rayramid.pipelines.selection import Limits, broken_rule, limits, of_codecs
from rayramid.pipelines.spec import SCORES, JobName, Thresholds
from rayramid.pipelines.stages import RESULTS

# What the shots job says of a clip, and what its source said when it was cut.
CLIPS = pa.schema([*RESULTS["shots"], *((name, pa.string()) for name in ("uri", "name", "kind", "licence", "split"))])
SCORED = pa.schema([("clip_id", pa.string()), *((name, pa.float64()) for name in SCORES)])


@dataclass(frozen=True)
class Clips:
    """What a root holds.

    Attributes:
        kept: clips within the thresholds, by id: rows of CLIPS.
        rejected: how many are not.
        unscored: how many could not be judged, and are left out.
    """

    kept: pa.Table
    rejected: int
    unscored: int


def read_clips(root: str, keep: Thresholds) -> Clips:
    """Every clip that the shots job ever cut below `root` and nobody removed, judged by its scores and its file.

    Without thresholds on scores in `keep`, no scores are needed.

    Raises:
        UserError: nothing was cut there, or thresholds are given and nothing is scored.
    """
    removals = read_removals(root)
    clips = _results(root, "shots", CLIPS)
    clips = tables.without(clips, "uri", sorted(removals.sources))
    clips = tables.without(clips, "clip_id", sorted(removals.clips))
    if clips.num_rows == 0:
        raise UserError(f"{root}: no clips here; cut some with `rayramid data run SPEC --only shots`")
    clips = tables.distinct(clips, "clip_id").sort_by("clip_id")
    coded = clips if keep.codecs is None else clips.filter(of_codecs(clips, keep.codecs))
    if not keep.on_scores:
        return Clips(coded, clips.num_rows - coded.num_rows, 0)
    scores = tables.found(coded["clip_id"], _results(root, "score", SCORED), "clip_id")
    scored = scores["clip_id"].is_valid()
    judged, scores = coded.filter(scored), scores.filter(scored)
    if judged.num_rows == 0:
        raise UserError(f"{root}: no clip is scored; `keep` needs `rayramid data run SPEC --only score` first")
    bounds = limits(scores, keep, SCORES)
    fits = tables.computed(
        scores, SCORED.names, lambda *row: _fits(dict(zip(SCORED.names, row, strict=True)), bounds), pa.bool_()
    )
    kept, unscored = judged.filter(fits), coded.num_rows - judged.num_rows
    return Clips(kept, clips.num_rows - kept.num_rows - unscored, unscored)


def _fits(scores: Row, bounds: Mapping[str, Limits]) -> bool:
    return broken_rule(scores, bounds) is None


def _results(root: str, job: JobName, columns: pa.Schema) -> pa.Table:
    """The results of all that is committed; the newest where an item was done twice."""
    return outcomes_of(root, job, read_plans(root, job), columns=columns).rows.select(columns.names)
