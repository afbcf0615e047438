"""Why a job is not admitted: what a worker can hold, what its owner may ask for, and how many may wait."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rayramid.serve.admission import Admission, Capacity
from rayramid.serve.entry import Entry
from rayramid.serve.job import Job
from rayramid.serve.outlook import Outlook
from rayramid.serve.spec import KeyLimits
from rayramid.serve.usage import until_tomorrow_s


@dataclass(frozen=True)
class Situation:
    """What a job meets that asks to be admitted.

    Args:
        capacity: of a worker with the job's model, once one has said it.
        own: jobs of the same owner that have not ended.
        arriving: how many more of them are being admitted.
        spent: tokens that the owner has asked for today.
        waiting: how many jobs of anybody will wait with this one, itself included.
        queue_limit: how many may.
    """

    capacity: Capacity | None
    own: Sequence[Entry]
    arriving: int
    spent: int
    waiting: int
    queue_limit: int


def refusal(job: Job, limits: KeyLimits, met: Situation, look: Callable[[], Outlook], now: float) -> Admission | None:
    """Why a job can't be admitted, and when it is worth while to ask again; None if it can.

    Args:
        job: that asks.
        limits: of its owner.
        met: how things stand.
        look: estimates when others will be begun and done.
        now: Unix time.
    """
    if met.capacity and job.work.cached_tokens > met.capacity.cache_tokens:
        return Admission(False, "too_large")
    if limits.jobs is not None and len(met.own) + met.arriving >= limits.jobs:
        return Admission(False, "too_many_jobs", look().one_ends_after_s(met.own))
    if limits.tokens_per_day is not None and met.spent + job.work.tokens > limits.tokens_per_day:
        return Admission(False, "quota", until_tomorrow_s(now))
    if met.waiting > met.queue_limit:
        return Admission(False, "queue_full", look().room_after_s())
    return None
