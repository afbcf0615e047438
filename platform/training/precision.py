"""The number formats of a run."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class Precision:
    """Formats of the weights and of the forward pass.

    Attributes:
        weights: of weights, optimiser state and latents.
        compute: what autocast computes matrix products in; None computes in `weights`.
    """

    weights: torch.dtype
    compute: torch.dtype | None

    @classmethod
    def choose(cls, name: str, device: torch.device) -> "Precision":
        """The formats that a spec's `precision` means on `device`."""
        if name == "float64":
            return cls(torch.float64, None)
        if name == "bfloat16" or (name == "auto" and has_fast_bfloat16(device)):
            return cls(torch.float32, torch.bfloat16)
        return cls(torch.float32, None)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context for a forward pass."""
        if self.compute is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.compute)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are clearly faster than float32 ones.

    Of CPUs with instructions for them, some are four times as fast in bfloat16 and others half as fast: only a
    measurement tells. It takes some milliseconds and counts CPU time, so that other processes don't matter.
    """
    if device.type == "cpu":
        supported = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return supported and _product_seconds(torch.bfloat16) < 0.8 * _product_seconds(torch.float32)
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


@cache
def _product_seconds(dtype: torch.dtype) -> float:
    """CPU seconds of a product of two matrices, the best of a few."""
    matrix = torch.ones(512, 512, dtype=dtype)
    seconds = []
    for _ in range(5):
        began = time.process_time()
        matrix @ matrix
        seconds.append(time.process_time() - began)
    return min(seconds)
