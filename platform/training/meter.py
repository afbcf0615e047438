"""How fast a run goes and what it waits for."""

from rayramid.platform.training.feed import Share
from rayramid.platform.training.parallel import Ranks


class Meter:
    """Collects over the steps between two lines of metrics."""

    def __init__(self) -> None:
        self._steps: list[tuple[Share, float, float]] = []

    def add(self, share: Share, gradient_norm: float, seconds: float) -> None:
        """Adds one step, which took `seconds` beside the wait for its data."""
        self._steps.append((share, gradient_norm, seconds))

    def gather(self, ranks: Ranks) -> dict[str, float]:
        """Means over the steps since the last call; the wait is the longest of all ranks. A collective. Starts anew."""
        shares, norms, times = zip(*self._steps, strict=True)
        self._steps = []
        waited = sum(share.waited for share in shares)
        seconds = sum(times) + waited
        tokens = sum(share.tokens for share in shares)
        return {
            "gradient_norm": sum(norms) / len(norms),
            "tokens_per_step": tokens / len(shares),
            "fill": sum(share.fill for share in shares) / len(shares),
            "tokens_per_second": tokens / seconds,
            "seconds_per_step": seconds / len(shares),
            "wait_share": max(ranks.gather(waited)) / seconds,
        }
