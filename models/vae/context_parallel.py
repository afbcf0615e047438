"""One long video over several ranks along time: every causal convolution gets its past from the rank before.

Each rank holds consecutive frames: the first 1 + 8n of them, the others 8n each (`share` cuts them so). All ranks run
the same layers in step, and before a convolution each one hands the end of its input to the next rank. Gradients travel
back the same way, so training works as in one process.
Shapes: B batch, C channels, T time, H height, W width.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rayramid.models.vae.model import CausalVAE


def encode_share(vae: CausalVAE, frames_B3THW: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Moments of this rank's frames, given that the ranks before hold the frames before; all ranks call it together."""
    return vae.encode_chunk(frames_B3THW, Neighbour(group))


def decode_share(vae: CausalVAE, z_BCTHW: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Frames of this rank's raw latents, given that the ranks before hold the latents before."""
    return vae.decode_chunk(z_BCTHW, Neighbour(group))


def share(latents: int, rank: int, world: int) -> tuple[int, int]:
    """(start, stop) of a rank's latents; a latent is 8 frames, the video's first latent 1 frame.

    Raises:
        ValueError: fewer than two latents for some rank, since a convolution looks two frames back.
    """
    if latents < 2 * world:
        raise ValueError(f"{latents} latents are too few for {world} ranks: each needs two")
    return rank * latents // world, (rank + 1) * latents // world


class Neighbour:
    """The past of a rank's frames: what the rank before sends; nothing for the first rank."""

    def __init__(self, group: dist.ProcessGroup | None = None):
        self.group, self.first = group, dist.get_rank(group) == 0

    def prepend(self, x_BCTHW: Tensor, pad: int, keep: int) -> Tensor:
        """Put the end of the previous rank's input before this one's; zeros on the first rank."""
        assert x_BCTHW.shape[2] >= keep, "a rank's share is too short"
        received = _Handover.apply(x_BCTHW[:, :, x_BCTHW.shape[2] - keep :].contiguous(), self.group)
        if self.first:
            # The gradient of what this rank hands over must flow, so `received` stays in the graph.
            received = torch.cat([x_BCTHW.new_zeros(*x_BCTHW.shape[:2], pad - keep, *x_BCTHW.shape[3:]), received], 2)
        return torch.cat([received, x_BCTHW], dim=2)


class _Handover(torch.autograd.Function):
    """Sends a tail to the next rank and gives the one that the previous rank sent: zeros on the first rank."""

    @staticmethod
    def forward(ctx: Any, tail: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        return _shift(tail, group, step=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _shift(gradients[0].contiguous(), ctx.group, step=-1), None


def _shift(tensor: Tensor, group: dist.ProcessGroup | None, step: int) -> Tensor:
    """Send to the rank `step` further on, receive from the one `step` before; zeros where there is none."""
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    received = torch.zeros_like(tensor)
    transfers = []
    if 0 <= rank + step < world:
        transfers.append(dist.P2POp(dist.isend, tensor, group=group, group_peer=rank + step))
    if 0 <= rank - step < world:
        transfers.append(dist.P2POp(dist.irecv, received, group=group, group_peer=rank - step))
    # In one batch: NCCL deadlocks when every rank waits for its send first. A single rank has nothing to send.
    for request in dist.batch_isend_irecv(transfers) if transfers else ():
        request.wait()
    return received
