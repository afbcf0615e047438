"""Losses by stage and unit, summed over packs, steps and ranks."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from rayramid.models.objective import Loss
from rayramid.platform.training.parallel import Ranks


@dataclass(frozen=True)
class Losses:
    """Means over targets.

    Attributes:
        mean: over all targets.
        table: by stage and unit, as `{"0": {"0": …, "1": …}, …}`; stage 0 is full resolution.
    """

    mean: float
    table: dict[str, dict[str, float]]


class Tally:
    """Collects losses target by target; looks at none of them before `gather`, so that a GPU is not waited for."""

    def __init__(self) -> None:
        self._cells: list[tuple[int, int]] = []
        self._losses: list[Tensor] = []

    def add(self, loss: Loss) -> None:
        """Adds the losses of one pack's targets."""
        self._cells += zip(loss.levels, loss.units, strict=True)
        self._losses.append(loss.errors.detach())

    def gather(self, ranks: Ranks) -> Losses:
        """The means over all that was added on all ranks, of which there is something; a collective. Starts anew."""
        losses = torch.cat(self._losses).double().tolist() if self._losses else []
        sums: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for cells, values in ranks.gather((self._cells, losses)):
            for cell, value in zip(cells, values, strict=True):
                sums[cell][0] += value
                sums[cell][1] += 1
        self._cells, self._losses = [], []
        table: dict[str, dict[str, float]] = defaultdict(dict)
        for (level, unit), (total, count) in sorted(sums.items()):
            table[str(level)][str(unit)] = total / count
        totals, counts = zip(*sums.values(), strict=True)
        return Losses(sum(totals) / sum(counts), dict(table))
