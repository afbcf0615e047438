"""Clips as the VAE takes them, and the ranks that share their time.

Shapes: B clips, T frames, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import prod

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.context_parallel import Neighbour, share
from rayramid.models.vae.past import Past, Whole
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.vae.feed import Frames, Share
from rayramid.platform.training.vae.plan import Part, sharers


@dataclass(frozen=True)
class Batch:
    """A rank's part of some clips as the VAE takes it; B clips.

    Attributes:
        frames: [B, 3, T, H, W] in [-1, 1], this rank's.
        noise: of the posterior samples, for this rank's latents.
        values: of the latents of one whole clip.
        share: this rank's frames by all frames of a clip.
        past: where the convolutions of one pass find the frames before.
        group: the ranks that share the clips; None for one alone.
    """

    frames: Tensor
    noise: Tensor
    values: int
    share: float
    past: Callable[[], Past]
    group: dist.ProcessGroup | None


def batches(work: Share, most: int) -> Iterator[list[tuple[Part, Frames]]]:
    """A rank's clips, at most `most` together, each time of one kind and in their order."""
    for _, alike in groupby(zip(work.parts, work.clips, strict=True), key=lambda each: each[0].visit.kind):
        clips = list(alike)
        yield from (clips[i : i + most] for i in range(0, len(clips), most))


def batch_of(
    together: Sequence[tuple[Part, Frames]],
    config: VAEConfig,
    dtype: torch.dtype,
    device: torch.device,
    group: dist.ProcessGroup | None,
) -> Batch:
    """This rank's stretch of some clips of one size, on its device.

    Args:
        together: the clips, whole.
        config: of the VAE.
        dtype: of the weights.
        device: of the rank.
        group: the ranks that share a clip with this one.
    """
    part, clip_THWC = together[0]
    frames, height, width = clip_THWC.shape[:3]
    latents = 1 + (frames - 1) // config.temporal_ratio
    start, stop = share(latents, part.part, part.parts) if part.parts > 1 else (0, latents)
    first, last = (1 + (latent - 1) * config.temporal_ratio if latent else 0 for latent in (start, stop))
    mine = torch.from_numpy(np.stack([clip_THWC[first:last] for _, clip_THWC in together])).to(device)
    shape = (config.latent_channels, latents, height // config.spatial_ratio, width // config.spatial_ratio)
    # Drawn for the whole clip: every rank takes its own part of the same noise.
    noise = torch.stack(
        [
            torch.randn(shape, generator=torch.Generator().manual_seed(part.visit.key), dtype=dtype)
            for part, _ in together
        ]
    )
    sharing = group if part.parts > 1 else None
    return Batch(
        frames=mine.permute(0, 4, 1, 2, 3).to(dtype) / 127.5 - 1,
        noise=noise[:, :, start:stop].to(device),
        values=prod(shape),
        share=(last - first) / frames,
        past=Whole if sharing is None else partial(Neighbour, sharing),
        group=sharing,
    )


def neighbours(time_split: int, ranks: Ranks) -> dist.ProcessGroup | None:
    """The group of ranks that share clips with this one; None for a rank that shares none. A collective."""
    parts = sharers(time_split, ranks.world)
    mine: dist.ProcessGroup | None = None
    if parts > 1:
        for first in range(0, ranks.world - parts + 1, parts):
            # Every rank takes part in the making of every group.
            group = dist.new_group(list(range(first, first + parts)))
            if first <= ranks.rank < first + parts:
                assert isinstance(group, dist.ProcessGroup)
                mine = group
    return mine
