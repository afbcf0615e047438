"""The processes of a run, and how they speak to each other."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, and which of them this is."""

    world: int
    rank: int
    device: torch.device

    @classmethod
    def here(cls, device: torch.device) -> "Ranks":
        """This process in the initialised process group, or alone."""
        if not dist.is_initialized():
            return cls(1, 0, device)
        return cls(dist.get_world_size(), dist.get_rank(), device)

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what only one should."""
        return self.rank == 0

    def gather(self, part: Any) -> list[Any]:
        """Every rank's `part`, by rank, on all ranks."""
        if self.world == 1:
            return [part]
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, part)
        return parts

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        self.gather(None)

    def agree(self, answer: Any) -> Any:
        """The first rank's `answer`, on all ranks."""
        if self.world == 1:
            return answer
        answers = [answer]
        dist.broadcast_object_list(answers, src=0)
        return answers[0]

    def all(self, answer: Tensor) -> Tensor:
        """Whether `answer`, a boolean scalar on the device, is true on all ranks."""
        if self.world == 1:
            return answer
        true_everywhere = answer.int()
        dist.all_reduce(true_everywhere, dist.ReduceOp.MIN)
        return true_everywhere.bool()
