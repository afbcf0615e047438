"""Losses by stage and unit, and by stage and noise, summed over packs, steps and ranks."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rayramid.models.objective import Loss
from rayramid.platform.training.parallel import Ranks

# The local time of a stage, 0 (noisy) to 1, in so many bins of equal width.
NOISE_BINS = 5

Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Losses:
    """Means over targets.

    Attributes:
        mean: over all targets.
        table: by stage and unit, as `{"0": {"0": …, "1": …}, …}`; stage 0 is full resolution.
        noise: by stage and where its bin of local time begins, as `{"0": {"0.0": …, "0.2": …}, …}`.
    """

    mean: float
    table: Table
    noise: Table


class Tally:
    """Collects losses target by target; looks at none of them before `gather`, so that a GPU is not waited for."""

    def __init__(self) -> None:
        self._cells: list[tuple[int, int, float]] = []
        self._losses: list[Tensor] = []

    def add(self, loss: Loss) -> None:
        """Adds the losses of one pack's targets."""
        self._cells += zip(loss.levels, loss.units, loss.times, strict=True)
        self._losses.append(loss.errors.detach())

    def gather(self, ranks: Ranks) -> Losses:
        """The means over all that was added on all ranks, of which there is something; a collective. Starts anew."""
        mine = torch.cat(self._losses).double().tolist() if self._losses else []
        targets = [
            (*cell, value)
            for cells, values in ranks.gather((self._cells, mine))
            for cell, value in zip(cells, values, strict=True)
        ]
        self._cells, self._losses = [], []
        return Losses(
            mean=sum(value for *_, value in targets) / len(targets),
            table=_means((level, unit, str(unit), value) for level, unit, _, value in targets),
            noise=_means((level, *_noise_bin(time), value) for level, _, time, value in targets),
        )


def _noise_bin(time: float) -> tuple[int, str]:
    number = min(int(time * NOISE_BINS), NOISE_BINS - 1)
    return number, f"{number / NOISE_BINS:.1f}"


def _means(targets: Iterable[tuple[int, int, str, float]]) -> Table:
    """Means of (level, column, column's name, value), in the order of levels and columns."""
    values: dict[tuple[int, int, str], list[float]] = defaultdict(list)
    for level, column, name, value in targets:
        values[level, column, name].append(value)
    table: Table = defaultdict(dict)
    for (level, _, name), found in sorted(values.items()):
        table[str(level)][name] = sum(found) / len(found)
    return dict(table)
