"""How the ranks of a run divide its work: the weights by FSDP2, and each packed sequence by sequence parallelism."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.precision import Precision
from rayramid.platform.training.spec.hardware import Memory, Parallel


@dataclass(frozen=True)
class Mesh:
    """Which ranks share weights and which share packs, seen from one of them.

    Attributes:
        ranks: all processes of the run.
        weights: FSDP's mesh, (shard) or (replicate, shard); None where one rank has everything.
        sequence: the ranks that split this rank's packs; None where each has packs of its own.
        readers: how many groups of ranks have packs of their own.
        reader: which of them this rank is in.
    """

    ranks: Ranks
    weights: DeviceMesh | None
    sequence: dist.ProcessGroup | None
    readers: int
    reader: int

    @classmethod
    def of(cls, ranks: Ranks, parallel: Parallel, *, offload: bool = False) -> "Mesh":
        """The mesh that a spec's `parallel` means for these ranks; a collective.

        Ranks that split a pack are neighbours, and so are those that share one copy of the weights. It is FSDP that
        offloads, so with `offload` one rank is a mesh, too.
        """
        device, world = ranks.device.type, ranks.world
        readers = world // parallel.sequence
        weights = sequence = None
        if world > 1 or offload:
            shard = parallel.shard or world
            if shard < world:
                weights = init_device_mesh(device, (world // shard, shard), mesh_dim_names=("replicate", "shard"))
            else:
                weights = init_device_mesh(device, (world,), mesh_dim_names=("shard",))
        if parallel.sequence > 1:
            mesh = init_device_mesh(device, (readers, parallel.sequence), mesh_dim_names=("readers", "sequence"))
            sequence = mesh.get_group("sequence")
        return cls(ranks, weights, sequence, readers, ranks.rank // parallel.sequence)

    @property
    def leads(self) -> bool:
        """Whether this rank speaks for those that split its packs, who all know the same."""
        return self.ranks.rank % (self.ranks.world // self.readers) == 0

    def gather(self, part: Sequence[Any]) -> list[Any]:
        """The items of all readers, each once, on all ranks."""
        return [each for theirs in self.ranks.gather(part if self.leads else ()) for each in theirs]


def check_parallel(parallel: Parallel, world: int, heads: int) -> None:
    """Refuses a division that so many ranks, or a model of so many heads, can't have.

    Raises:
        UserError: the ranks are no multiple of `shard` or of `sequence`, or there are fewer heads than `sequence`.
    """
    if parallel.sequence > heads:
        raise UserError(
            f"parallel.sequence is {parallel.sequence}; attention of {heads} heads is split over {heads} at most"
        )
    for name, size in (("shard", parallel.shard or 1), ("sequence", parallel.sequence)):
        if world % size:
            raise UserError(f"parallel.{name} is {size}, which does not divide the {world} workers; change one of them")


def shard(model: DiT, mesh: Mesh, precision: Precision, memory: Memory) -> None:
    """Puts the model where it computes, in place: all of it on one rank, or each rank's shards of every block.

    Blocks are gathered in the format in which they compute; what is outside of blocks is little, and stays exact. All
    ranks must hold the same weights before.
    """
    if mesh.weights is None:
        model.to(mesh.ranks.device)
        return
    policy = MixedPrecisionPolicy()
    if precision.compute is not None:
        # The residual stream and the sum of gradients stay exact.
        policy = MixedPrecisionPolicy(precision.compute, reduce_dtype=precision.weights, cast_forward_inputs=False)
    offload = (
        CPUOffloadPolicy(pin_memory=mesh.ranks.device.type != "cpu") if memory.offload_weights else OffloadPolicy()
    )
    # By default the root keeps its gathered weights after a forward without gradients, and the next one would not see
    # that the shards were exchanged for their average and back.
    for block in model.blocks:
        fully_shard(block, mesh=mesh.weights, reshard_after_forward=True, mp_policy=policy, offload_policy=offload)
    fully_shard(model, mesh=mesh.weights, reshard_after_forward=True, offload_policy=offload)


def sum_gradients(model: DiT, now: bool) -> None:
    """Whether the next backward pass sums gradients over ranks, or leaves that to a later one."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)
