"""The terms of the loss, summed over clips, steps and ranks."""

from collections import defaultdict

import torch
from torch import Tensor

from rayramid.platform.training.parallel import Ranks


class Tally:
    """Collects terms; looks at none of them before `gather`, so that a GPU is not waited for.

    Attributes:
        steps: since the last `gather`.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._terms: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, name: str, values_B: Tensor, weight: float) -> None:
        """Adds this rank's part of a term of some clips, each `weight` times."""
        self._terms[name].append(values_B.detach().sum() * weight)

    def gather(self, ranks: Ranks) -> dict[str, float]:
        """The mean of every term over the steps since the last call, over all ranks. A collective. Starts anew."""
        sums = {name: float(torch.stack(values).double().sum()) for name, values in self._terms.items()}
        means: dict[str, float] = defaultdict(float)
        for part in ranks.gather(sums):
            for name, total in part.items():
                means[name] += total / self.steps
        self.steps = 0
        self._terms.clear()
        return dict(means)
