"""A DiT as a machine holds it for sampling: number format, weights of 8 bits, blocks in the host's memory, ranks."""

from dataclasses import dataclass

import torch

from rayramid.models.card import ModelCard
from rayramid.models.checkpoint import load_dit
from rayramid.models.dit.model import DiT
from rayramid.models.lora import merge_adapter
from rayramid.models.offload import offload_blocks
from rayramid.models.quantise import quantise


@dataclass(frozen=True)
class Holding:
    """How a DiT is held.

    Attributes:
        device: torch's name of it; the first rank's, where there are several.
        dtype: of its weights, and of what they multiply.
        int8: the blocks' weights are 8 bits.
        offload: the blocks wait in the host's memory.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    int8: bool = False
    offload: bool = False

    def of_rank(self, rank: int) -> str:
        """The device of a rank: GPUs are counted on, a CPU is shared."""
        device = torch.device(self.device)
        return f"{device.type}:{(device.index or 0) + rank}" if device.type == "cuda" else self.device

    def load(self, url: str, card: ModelCard, adapter: str | None = None, rank: int = 0) -> DiT:
        """The DiT of the checkpoint folder `url` as it is to be held, an adapter merged into it if one is given."""
        dit = load_dit(url, card)
        if adapter is not None:
            merge_adapter(dit, adapter)
        return self.hold(dit, rank)

    def hold(self, dit: DiT, rank: int = 0) -> DiT:
        """A DiT on the CPU, as it is to be held; it is changed in place."""
        dit = dit.to(self.dtype).requires_grad_(False)
        if self.int8:
            quantise(dit)
        return offload_blocks(dit, self.of_rank(rank)) if self.offload else dit.to(self.of_rank(rank))
