"""How noisy the gradient of a step is: whether larger steps, or fewer units per clip, would pay.

The gradient A of some of a step's targets, a of n, is compared with that of all of them, G. If targets are independent,
E|A - G|² = (n - a) / a · var(G), and E|G|² = |E G|² + var(G).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class NoiseTally:
    """Collects the noise of gradients over the steps that were measured."""

    def __init__(self) -> None:
        self._measured: list[tuple[float, float]] = []

    def add(self, half: list[Tensor], targets: int, whole: list[Tensor], of: int) -> None:
        """Adds one step; a collective. `half` is overwritten.

        Args:
            half: the gradient of the mean over `targets` targets.
            targets: how many those are.
            whole: the gradient of the mean over them and the others.
            of: how many those are.
        """
        self._measured.append(variance_and_signal(half, targets, whole, of))

    def take(self) -> dict[str, float]:
        """`gradient_noise_ratio`: variance by signal over the steps since the last call; nothing without any.

        Infinite where nothing but noise was seen. Times the targets of a step, it is the size of step at which both are
        equal, beyond which larger steps pay less and less (McCandlish et al. 2018, "An Empirical Model of Large-Batch
        Training", Eq. 2.8).
        """
        if not self._measured:
            return {}
        variance, signal = (sum(values) for values in zip(*self._measured, strict=True))
        self._measured = []
        return {"gradient_noise_ratio": variance / signal if signal > 0 else float("inf")}


def variance_and_signal(half: list[Tensor], targets: int, whole: list[Tensor], of: int) -> tuple[float, float]:
    """Unbiased estimates of the variance of `whole`, over all parameters, and of its expectation's squared norm.

    Arguments as for `NoiseTally.add`. By chance the second may be negative.
    """
    torch._foreach_sub_(half, whole)
    variance = _squared_norm(half) * targets / (of - targets)
    return variance, _squared_norm(whole) - variance


def half_of(weights: Sequence[float], readers: int, reader: int) -> tuple[float, ...] | None:
    """The weights of a rank's packs in one half of a step: its first packs, or all of every second rank's.

    As many on all ranks, so that they run the same forwards. None where there is a single pack.
    """
    if len(weights) > 1:
        return tuple(weights[: len(weights) // 2])
    if readers > 1:
        return tuple(weight * (reader % 2 == 0) for weight in weights)
    return None


def gradients_of(model: nn.Module) -> list[Tensor]:
    """All gradients there are; the live tensors."""
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def _squared_norm(tensors: list[Tensor]) -> float:
    norm = nn.utils.get_total_norm(tensors)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm) ** 2
