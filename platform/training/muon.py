"""Muon for kernels of convolutions, which `torch.optim.Muon` refuses: each is a matrix [channels out, all else]."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
# The quintic of https://kellerjordan.github.io/posts/muon/, steepest at 0, and how often it is applied.
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose matrix is brought near to an orthogonal one before it is applied.

    Args:
        params: parameters or groups, of two dimensions or more.
        lr: the step's length; a matrix with more rows than columns moves sqrt(rows / columns) as far.
        weight_decay: decoupled.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[len(weight), weight.numel() // len(weight)].append(weight)
            for (rows, columns), weights in by_shape.items():
                # Matrices of one shape go through the iteration together.
                updates = orthogonal(torch.stack([self._momentum(weight).view(rows, columns) for weight in weights]))
                length = group["lr"] * math.sqrt(max(1.0, rows / columns))
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(update.view_as(weight), alpha=length)

    def _momentum(self, weight: Tensor) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad, memory_format=torch.contiguous_format)
        average: Tensor = state["momentum_buffer"]
        average.lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(average, MOMENTUM).contiguous()


def orthogonal(matrices_NRC: Tensor) -> Tensor:
    """Matrices of like singular vectors, whose singular values lie between about 0.7 and 1.2.

    In bfloat16, which is exact enough for a direction; float64 stays, so that runs in it can be compared.
    """
    dtype = matrices_NRC.dtype
    x = matrices_NRC if dtype == torch.float64 else matrices_NRC.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(dtype)
