"""Memory of training and sampling a DiT: activations, K/V cache, weights and optimiser, and what fits on a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rayramid.models.dit.config import DiTConfig

BF16 = 2

# fp32 weights, gradients, two Adam moments and the moving average, all sharded over the GPUs.
TRAINING_BYTES = 20

# Bytes per token and unit of width that stay for the backward pass under bf16 autocast, attention in bf16 as on GPUs:
# of all inside a block, of what selective recomputation keeps of it (products and the block's input), of its fp32
# input alone, and outside of blocks. Measured on the real modules; a test holds them.
DOUBLE_INSIDE, SINGLE_INSIDE = 79, 69
DOUBLE_KEPT, SINGLE_KEPT = 24, 22
BLOCK_INPUT = 4
OUTSIDE = 6

GPU_GB = (24, 40, 80)
# The rest is for kernels, communication and fragmentation.
USABLE = 0.9
TRAINING_GPUS = (1, 8, 64)

Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class Fit:
    """Bytes that each GPU needs for `use` spread over `gpus`, and whether GPUs of so many GB have them."""

    use: str
    gpus: int
    bytes: int
    fits: Mapping[int, bool]


def activation_bytes(config: DiTConfig, tokens: int, recompute: Recompute) -> int:
    """Peak bytes of what the backward pass needs for one sequence of `tokens` tokens, under bf16 autocast."""
    doubles, singles = config.double_blocks, config.single_blocks
    per_width = {
        "none": OUTSIDE + DOUBLE_INSIDE * doubles + SINGLE_INSIDE * singles,
        # One block at a time is whole again.
        "selective": OUTSIDE + DOUBLE_KEPT * doubles + SINGLE_KEPT * singles + DOUBLE_INSIDE,
        "full": OUTSIDE + BLOCK_INPUT * (doubles + singles) + DOUBLE_INSIDE,
    }
    return tokens * config.width * per_width[recompute]


def cache_bytes(config: DiTConfig, tokens: int) -> int:
    """Bytes of the keys and values of `tokens` tokens in every block, in bf16."""
    return 2 * BF16 * config.width * (config.double_blocks + config.single_blocks) * tokens


def fits(config: DiTConfig, parameters: int, training_tokens: int, cache: int, step_tokens: int) -> list[Fit]:
    """What sampling, and training with full recomputation, needs of each GPU.

    Args:
        config: the DiT; VAE and text encoders are not counted.
        parameters: its number of parameters.
        training_tokens: tokens of one sequence per GPU.
        cache: bytes of K/V while sampling.
        step_tokens: tokens of the largest denoising step.
    """
    sampling = BF16 * parameters + cache + 2 * step_tokens * config.width * DOUBLE_INSIDE
    rows = [("sampling in bf16", 1, sampling)]
    for gpus in TRAINING_GPUS:
        share = TRAINING_BYTES * parameters // gpus
        rows.append(("training, full recomputation", gpus, share + activation_bytes(config, training_tokens, "full")))
    return [Fit(use, gpus, size, {gb: size <= USABLE * gb * 1e9 for gb in GPU_GB}) for use, gpus, size in rows]
