"""Muon for matrices, for kernels of convolutions, and for shards of both.

`torch.optim.Muon` refuses kernels, and of FSDP's shards it makes other numbers than of whole matrices, with eleven sums
over all ranks for each. Here every matrix is whole on one rank once a step, and ranks share the matrices.
Shape letters: N matrices of one shape, R rows, C columns.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

MOMENTUM = 0.95
# The quintic of https://kellerjordan.github.io/posts/muon/, steepest at 0, and how often it is applied.
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose matrix is brought near to an orthogonal one before it is applied.

    A kernel of a convolution is a matrix [channels out, all else].

    Args:
        params: parameters or groups, of two dimensions or more.
        lr: the step's length; a matrix with more rows than columns moves sqrt(rows / columns) as far.
        weight_decay: decoupled.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves every parameter that has a gradient; a collective of the ranks that share the parameters."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[len(weight), weight.numel() // len(weight)].append(weight)
            for (rows, columns), weights in by_shape.items():
                # Matrices of one shape go through the iteration together.
                momenta_NRC = torch.stack([self._momentum(weight).view(-1, columns) for weight in weights])
                mesh = weights[0].device_mesh if isinstance(weights[0], DTensor) else None
                updates = orthogonal(momenta_NRC) if mesh is None else orthogonal_shards(momenta_NRC, rows, mesh)
                length = group["lr"] * math.sqrt(max(1.0, rows / columns))
                for weight, update in zip(map(own, weights), updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(update.view_as(weight), alpha=length)

    def _momentum(self, weight: Tensor) -> Tensor:
        """This rank's part of it."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad, memory_format=torch.contiguous_format)
        average, gradient = own(state["momentum_buffer"]), own(weight.grad)
        average.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(average, MOMENTUM).contiguous()


def own(tensor: Tensor) -> Tensor:
    """This rank's shard, as a view; all of a tensor that isn't sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def orthogonal(matrices_NRC: Tensor) -> Tensor:
    """Matrices of like singular vectors, whose singular values lie between about 0.7 and 1.2.

    In bfloat16 on CUDA, which is exact enough for a direction; float64 stays, so that runs in it can be compared.
    """
    dtype = matrices_NRC.dtype
    x = rounded(matrices_NRC)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(dtype)


def rounded(matrices: Tensor) -> Tensor:
    """In the format that the iteration computes in."""
    # CPUs multiply small bf16 matrices slower than fp32 ones.
    return matrices.bfloat16() if matrices.is_cuda and matrices.dtype != torch.float64 else matrices


def orthogonal_shards(shards_NRC: Tensor, rows: int, mesh: DeviceMesh) -> Tensor:
    """`orthogonal` of matrices of `rows` rows of which each rank of the mesh's last dimension has some; its own again.

    Rank r makes the matrices r, r + ranks, r + 2 ranks, …: one exchange brings their rows there, one takes them back.
    """
    group, ranks = mesh.get_group(mesh.ndim - 1), mesh.size(mesh.ndim - 1)
    number, mine, columns = shards_NRC.shape
    # FSDP cuts as `torch.chunk` does: later ranks may have fewer rows, or none.
    chunk = -(-rows // ranks)
    rows_of = [min(max(rows - rank * chunk, 0), chunk) for rank in range(ranks)]
    made_by = [len(range(rank, number, ranks)) for rank in range(ranks)]
    here = made_by[dist.get_rank(group)]
    sizes_of_matrices = [count * mine * columns for count in made_by]
    sizes_of_shards = [here * theirs * columns for theirs in rows_of]

    # Where the weights are offloaded, the shards come from the host's memory.
    device = torch.device(mesh.device_type)
    sent = torch.cat([rounded(shards_NRC[rank::ranks]).flatten() for rank in range(ranks)]).to(device)
    received = _exchange(sent, sizes_of_matrices, sizes_of_shards, group).split(sizes_of_shards)
    parts = [part.view(here, theirs, columns) for part, theirs in zip(received, rows_of, strict=True)]
    made = orthogonal(torch.cat(parts, dim=1))
    sent = torch.cat([part.flatten() for part in made.split(rows_of, dim=1)])
    received = _exchange(sent, sizes_of_shards, sizes_of_matrices, group).split(sizes_of_matrices)
    updates_NRC = torch.empty_like(shards_NRC)
    for rank, (part, count) in enumerate(zip(received, made_by, strict=True)):
        updates_NRC[rank::ranks] = part.view(count, mine, columns)
    return updates_NRC


def _exchange(x: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    out = x.new_empty(sum(received))
    dist.all_to_all_single(out, x, received, sent, group=group)
    return out
