"""How the ranks share one model: FSDP2 over a device mesh."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rayramid.models.dit.model import DiT


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


def shard(model: DiT, ranks: Ranks) -> None:
    """Gives each rank its shards of every block's parameters, in place; on one rank the model stays as it is.

    All ranks must hold the same weights before.
    """
    if ranks.world == 1:
        return
    mesh = init_device_mesh(ranks.device.type, (ranks.world,), mesh_dim_names=("shard",))
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # By default the root keeps its gathered weights after a forward without gradients, and the next one would not see
    # that the shards were exchanged for their average and back.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
