"""What a broker says about a job that is submitted to it, and a worker about itself."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Admission:
    """Whether a job may wait; if not, why, and in how many seconds there will likely be room."""

    accepted: bool
    reason: Literal["", "queue_full", "too_large"] = ""
    retry_after_s: int = 0


@dataclass(frozen=True)
class Capacity:
    """What one worker can do.

    Args:
        cache_tokens: whose keys and values it can hold.
        tokens_per_second: that it works off, as far as that is known.
    """

    cache_tokens: int
    tokens_per_second: float | None = None
