"""AdamW whose moments take a byte each (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization").

The quantisation is torchao's. The optimiser is not: torchao keeps moments in tensors of a type of its own, which
checkpoints can neither copy nor cut for another number of ranks. Here they are ordinary tensors, cut as their weight.
Shape letters: R rows, C columns, B blocks of a row.
"""

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torchao.optim.quant_utils import create_dynamic_map, quantize_8bit_with_qmap

from rayramid.platform.training.muon import own

# Neighbours in a row that share a scale; none are in two rows, so that shards of rows are shards of blocks.
BLOCK = 256
EPSILON = 1e-8
# The first moment has a sign, the second has none.
MOMENTS = {"exp_avg": True, "exp_avg_sq": False}


class AdamW8bit(torch.optim.Optimizer):
    """AdamW for matrices, whole ones or shards.

    Args:
        params: parameters or groups, of two dimensions.
        lr: the step's length.
        betas: of the moments.
        weight_decay: decoupled.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    state = self.state[weight]
                    if not state:
                        state.update(_zeros(weight))
                    _move(own(weight), own(weight.grad).float(), state, group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state over; PyTorch gives all of it the weights' format, in which codes keep their values."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in MOMENTS:
                state[name] = state[name].to(torch.uint8)


def _move(weight_RC: Tensor, gradient_RC: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """One step of one weight, or of its rows on this rank."""
    fast, slow = group["betas"]
    state["step"] += 1
    mean_RC, square_RC = (dequantised(*_stored(state, name), signed=signed) for name, signed in MOMENTS.items())
    mean_RC.lerp_(gradient_RC, 1 - fast)
    square_RC.lerp_(gradient_RC.square(), 1 - slow)
    step = float(state["step"])
    size_RC = square_RC.sqrt().div_(math.sqrt(1 - slow**step)).add_(EPSILON)
    weight_RC.mul_(1 - group["lr"] * group["weight_decay"])
    weight_RC.sub_(mean_RC / size_RC, alpha=group["lr"] / (1 - fast**step))
    for (name, signed), moment_RC in zip(MOMENTS.items(), (mean_RC, square_RC), strict=True):
        for stored, new in zip(_stored(state, name), quantised(moment_RC, signed=signed), strict=True):
            stored.copy_(new)


def quantised(x_RC: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes [R, C] of a byte each, and the largest magnitude [R, B] of each block."""
    rows, columns = x_RC.shape
    blocks_RBN = F.pad(x_RC, (0, -columns % BLOCK)).view(rows, -(-columns // BLOCK), BLOCK)
    scale_RB = blocks_RBN.abs().amax(-1).clip(1e-12)
    codes_RBN = quantize_8bit_with_qmap(blocks_RBN / scale_RB[..., None], _values(signed, x_RC.device))
    return codes_RBN.flatten(1)[:, :columns], scale_RB


def dequantised(codes_RC: Tensor, scale_RB: Tensor, *, signed: bool) -> Tensor:
    """What codes and scales stand for, [R, C] in fp32."""
    scale_RC = scale_RB.repeat_interleave(BLOCK, dim=1)[:, : codes_RC.shape[1]]
    return _values(signed, codes_RC.device)[codes_RC.int()] * scale_RC


@cache
def _values(signed: bool, device: torch.device) -> Tensor:
    """What the 256 codes stand for, in units of the block's scale."""
    return torch.tensor(create_dynamic_map(signed), device=device)


def _zeros(weight: Tensor) -> dict[str, Tensor]:
    state = {"step": torch.zeros(())}
    for name, signed in MOMENTS.items():
        parts = quantised(torch.zeros_like(own(weight), dtype=torch.float32), signed=signed)
        state[name], state[f"{name}_scale"] = (_cut_as(weight, part.contiguous()) for part in parts)
    return state


def _cut_as(weight: Tensor, part: Tensor) -> Tensor:
    """A tensor of which this rank has `part`, as many rows as of `weight`."""
    if not isinstance(weight, DTensor):
        return part
    columns = part.shape[1]
    whole = DTensor.from_local(
        part,
        weight.device_mesh,
        weight.placements,
        run_check=False,
        shape=torch.Size((len(weight), columns)),
        stride=(columns, 1),
    )
    # Where the weight is offloaded, that has moved the part to the mesh's device.
    return whole.to(weight.device)


def _stored(state: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return own(state[name]), own(state[f"{name}_scale"])
