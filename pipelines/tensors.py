"""Tensors as the raw little-endian bf16 bytes that the dataset stores (Arrow has no bf16)."""

import torch
from torch import Tensor


def bf16_bytes(tensor: Tensor) -> bytes:
    """The tensor's values in bf16, in row-major order."""
    return tensor.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
