"""What stays exact: parts that run in fp32 under autocast and pass float64 through."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """Low precision to fp32; fp32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def sampling_dtype(device: torch.device | str) -> torch.dtype:
    """Of the weights that make videos on a device: bf16 on CUDA, fp32 elsewhere, even if bf16 is what is stored."""
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


def rounded(weight: Tensor) -> Tensor:
    """An exact weight with the values that autocast's format has for it; as it is without autocast.

    So a model trains with the weights that it has when they are stored, or gathered by FSDP, in that format.
    """
    device = weight.device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return weight
    return weight.to(torch.get_autocast_dtype(device)).to(weight.dtype)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Autocast off; devices that have none (meta, for counting) need nothing."""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()
