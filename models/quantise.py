"""Weights of 8 bits for sampling: half of bf16's memory, a quarter of fp32's. Nothing else is rounded or trains."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayramid.models.dit.model import DiT

LARGEST = 127


class Int8Linear(nn.Module):
    """A linear layer whose weights are whole numbers from -127 to 127, times a scale for each output.

    It multiplies in the format that the layer had: whole numbers of this size are exact in bf16, too.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_OI = linear.weight.detach().float()
        scale_O = (weight_OI.abs().amax(dim=1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        self.register_buffer("weight", (weight_OI / scale_O[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale_O.to(linear.weight.dtype))
        self.bias = linear.bias

    def forward(self, x_TI: Tensor) -> Tensor:
        """[T, I] -> [T, O]."""
        dtype = self.scale.dtype
        product_TO = F.linear(x_TI.to(dtype), self.weight.to(dtype))
        return torch.addcmul(self.bias.to(product_TO.dtype), product_TO, self.scale.to(product_TO.dtype))


def quantise(dit: DiT) -> DiT:
    """Replace, in place, the linear layers of all blocks, which have nearly all weights; what embeds stays exact."""
    for block in dit.blocks:
        for module in list(block.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, Int8Linear(child))
    return dit.requires_grad_(False)


def weight_bytes(module: nn.Module) -> int:
    """What parameters and buffers hold."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
