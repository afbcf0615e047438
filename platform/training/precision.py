"""The number formats of a run."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

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
    """Whether bfloat16 products are faster than float32 ones; without hardware for them a CPU is far slower."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
