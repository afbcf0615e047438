"""What a broker says about a job that is submitted to it, and a worker about itself."""

from dataclasses import dataclass
from typing import Literal

from rayramid.serve.errors import ApiError, bad_request


@dataclass(frozen=True)
class Admission:
    """Whether a job may wait; if not, why, and in how many seconds there will likely be room."""

    accepted: bool
    reason: Literal["", "queue_full", "too_large", "too_many_jobs", "quota"] = ""
    retry_after_s: int = 0

    def refusal(self) -> ApiError | None:
        """What a client is told if it may not."""
        wait = f"{self.retry_after_s} s"
        headers = {"Retry-After": str(self.retry_after_s)}
        match self.reason:
            case "":
                return None
            case "queue_full":
                return ApiError(429, f"The queue is full; try again in {wait}.", code="queue_full", headers=headers)
            case "too_many_jobs":
                message = f"Too many videos of this key have not ended yet; try again in {wait}."
                return ApiError(429, message, code="rate_limit_exceeded", headers=headers)
            case "quota":
                message = f"This video would exceed what the key may ask for in a day; the next day begins in {wait}."
                # The openai client would ask again at once.
                headers["X-Should-Retry"] = "false"
                return ApiError(429, message, kind="insufficient_quota", code="insufficient_quota", headers=headers)
            case "too_large":
                message = (
                    "A video of this size and length needs more memory than the server has; ask for a smaller or "
                    "shorter one."
                )
                return bad_request(message, "size", "too_large")


@dataclass(frozen=True)
class Capacity:
    """What one worker can do.

    Args:
        cache_tokens: whose keys and values it can hold.
        tokens_per_second: that it works off, as far as that is known.
    """

    cache_tokens: int
    tokens_per_second: float | None = None
