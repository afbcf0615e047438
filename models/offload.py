"""Blocks of a DiT that wait in the host's memory: one at a time is on the device, for as long as it computes."""

from typing import Any

import torch
from torch import nn

from rayramid.models.dit.model import DiT


class Resident:
    """A block's weights in the host's memory, and their copies while it computes.

    Args:
        block: its tensors become those in the host's memory.
        device: where it computes.
    """

    def __init__(self, block: nn.Module, device: torch.device) -> None:
        block.to("cpu")
        self._device = device
        self._tensors = [*block.parameters(), *block.buffers()]
        # A copy from pinned memory runs beside the block before.
        pinned = device.type == "cuda"
        self._hosted = [tensor.data.pin_memory() if pinned else tensor.data for tensor in self._tensors]
        self.leave()
        block.register_forward_pre_hook(self.enter)
        block.register_forward_hook(self.leave, always_call=True)

    def enter(self, *_: Any) -> None:
        """The block is about to compute."""
        for tensor, hosted in zip(self._tensors, self._hosted, strict=True):
            tensor.data = hosted.to(self._device, non_blocking=True, copy=True)

    def leave(self, *_: Any) -> None:
        """It has computed, or failed."""
        for tensor, hosted in zip(self._tensors, self._hosted, strict=True):
            tensor.data = hosted


def offload_blocks(dit: DiT, device: torch.device | str) -> DiT:
    """Let all blocks wait in the host's memory, in place; what is left, embeddings and head, moves to the device.

    The device then holds one block instead of all, and every forward copies each block once: worth it where the model
    does not fit, or where packs are long.
    """
    residents = dit.blocks
    for block in residents:
        Resident(block, torch.device(device))
    for name, module in dit.named_children():
        if name not in ("double_blocks", "single_blocks"):
            module.to(device)
    for parameter in dit.parameters(recurse=False):
        parameter.data = parameter.data.to(device)
    return dit
