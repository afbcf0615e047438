"""Where a video's noise comes from: ordinary noise keyed by (seed, unit, level), whatever was drawn before."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

# noise(seed, unit, level, shape): N(0, 1) in fp32 on the CPU.
Noise = Callable[[int, int, int, tuple[int, ...]], Tensor]


def keyed_noise(seed: int, unit: int, level: int, shape: tuple[int, ...]) -> Tensor:
    """N(0, 1) of `shape`, fp32 on the CPU, so that a video is the same on every device and in every company."""
    digest = hashlib.blake2b(f"{seed} {unit} {level}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
    return torch.randn(shape, generator=generator)
