"""How fast a run goes, what it waits for, and what it has used."""

from statistics import fmean

from rayramid.platform.training.device import peak_memory, peak_tflops
from rayramid.platform.training.feed import Share
from rayramid.platform.training.parallel import Ranks


class Meter:
    """Collects over the steps between two lines of metrics.

    Args:
        ranks: the processes of the run.
        peak: of one device in TFLOP/s, what utilisation is a share of; looked up by the device's name when None.
    """

    def __init__(self, ranks: Ranks, peak: float | None = None) -> None:
        self._ranks, self._peak = ranks, peak or peak_tflops(ranks.device)
        self._steps: list[tuple[Share, float, float]] = []

    def add(self, share: Share, gradient_norm: float, seconds: float) -> None:
        """Adds one step, which took `seconds` beside the wait for its data."""
        self._steps.append((share, gradient_norm, seconds))

    def gather(self) -> dict[str, float]:
        """Means over the steps since the last call; a collective. Starts anew.

        Wait and memory are the largest of all ranks; `rank_balance` is the mean of their operations by the largest.
        What is recomputed is no operation here. `mfu` is there where the peak is known.
        """
        shares, norms, times = zip(*self._steps, strict=True)
        self._steps = []
        waited = sum(share.waited for share in shares)
        seconds = sum(times) + waited
        tokens = sum(share.tokens for share in shares)
        mine = (waited, [share.own_flops for share in shares], peak_memory(self._ranks.device))
        waits, work, memory = zip(*self._ranks.gather(mine), strict=True)
        tflops = sum(share.flops for share in shares) / seconds / self._ranks.world / 1e12
        return {
            "gradient_norm": fmean(norms),
            "tokens_per_step": tokens / len(shares),
            "fill": fmean(share.fill for share in shares),
            "rank_balance": fmean(fmean(step) / max(step) for step in zip(*work, strict=True)),
            "tokens_per_second": tokens / seconds,
            "seconds_per_step": seconds / len(shares),
            "wait_share": max(waits) / seconds,
            "tflops_per_rank": tflops,
            **({"mfu": tflops / self._peak} if self._peak else {}),
            "memory_gb": max(memory) / 1e9,
        }
