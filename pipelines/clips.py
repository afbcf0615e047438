"""The clips below a root as they are now: for those who want pixels, not latents."""

from collections.abc import Sequence
from dataclasses import dataclass

from rayramid.models.errors import UserError
from rayramid.pipelines import plan as plans
from rayramid.pipelines.job import Row
from rayramid.pipelines.outcomes import outcomes_of
from rayramid.pipelines.receipts import read_receipts
from rayramid.pipelines.removals import read_removals
from rayramid.pipelines.selection import broken_rule, limits
from rayramid.pipelines.spec import JobName, Keep


@dataclass(frozen=True)
class Clips:
    """What a root holds.

    Attributes:
        kept: clips within the thresholds, by id: rows of the shots job.
        rejected: how many are not.
        unscored: how many could not be judged, and are left out.
    """

    kept: Sequence[Row]
    rejected: int
    unscored: int


def read_clips(root: str, keep: Keep) -> Clips:
    """Every clip that the shots job ever cut below `root` and nobody removed, judged by its scores.

    Without thresholds in `keep`, no scores are needed.

    Raises:
        UserError: nothing was cut there, or thresholds are given and nothing is scored.
    """
    removals = read_removals(root)
    clips = {
        row["clip_id"]: row
        for row in _rows(root, "shots")
        if row["uri"] not in removals.sources and row["clip_id"] not in removals.clips
    }
    if not clips:
        raise UserError(f"{root}: no clips here; cut some with `rayramid data run SPEC --only shots`")
    ordered = [clips[name] for name in sorted(clips)]
    if keep == Keep():
        return Clips(ordered, 0, 0)
    scores = {row["clip_id"]: row for row in _rows(root, "score")}
    scored = [clip for clip in ordered if clip["clip_id"] in scores]
    if not scored:
        raise UserError(f"{root}: no clip is scored; `keep` needs `rayramid data run SPEC --only score` first")
    bounds = limits([scores[clip["clip_id"]] for clip in scored], keep)
    kept = [clip for clip in scored if broken_rule(scores[clip["clip_id"]], bounds) is None]
    return Clips(kept, len(scored) - len(kept), len(ordered) - len(scored))


def _rows(root: str, job: JobName) -> list[Row]:
    """The results of all that is committed; the newest where an item was done twice."""
    shards = plans.read_plans(root, job)
    outcomes = outcomes_of(root, job, plans.planned(shards), shards, read_receipts(root, job))
    return [row for _, rows in sorted(outcomes.rows.items()) for row in rows]
