"""A linear codec of whole patches, in parallel with the network: what an untrained VAE can already do.

The encoder maps each patch (8x8 pixels of a first frame; 8 frames of 8x8 pixels later on) to one latent. The decoder
reads a latent and its 8 neighbours, which removes most of the seams between patches. `pca.fit_pca` sets both.
Shapes: B batch, C latent channels, T time, H W pixels, h w latent grid.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rayramid.models.vae.layers import fold_patches, unfold_patches


class PatchSkip(nn.Module):
    """Two linear codecs, one for first frames (and images) and one for the frames of every later latent.

    Args:
        latent_channels: channels of a latent.
        side: pixels per latent along height and width.
        frames: frames per latent, after the first.
    """

    def __init__(self, latent_channels: int, side: int, frames: int):
        super().__init__()
        self.side, self.frames = side, frames
        image, video = 3 * side * side, 3 * frames * side * side
        self.image_encoder = nn.Conv2d(image, latent_channels, 1)
        self.video_encoder = nn.Conv2d(video, latent_channels, 1)
        self.image_decoder = nn.Conv2d(latent_channels, image, 3, padding=1)
        self.video_decoder = nn.Conv2d(latent_channels, video, 3, padding=1)

    def encode(self, frames_B3THW: Tensor, first: bool) -> Tensor:
        """[B, 3, (1 +) 8n, H, W] to [B, C, (1 +) n, h, w]."""
        alone, later = frames_B3THW.split([int(first), frames_B3THW.shape[2] - first], dim=2)
        parts = []
        if first:
            parts.append(per_frame(self.image_encoder, fold_patches(alone, self.side)))
        if later.shape[2]:
            parts.append(per_frame(self.video_encoder, self.fold_video(later)))
        return torch.cat(parts, dim=2)

    def decode(self, z_BCThw: Tensor, first: bool) -> Tensor:
        """[B, C, (1 +) n, h, w] to [B, 3, (1 +) 8n, H, W]."""
        alone, later = z_BCThw.split([int(first), z_BCThw.shape[2] - first], dim=2)
        parts = []
        if first:
            parts.append(unfold_patches(per_frame(self.image_decoder, alone), self.side))
        if later.shape[2]:
            patches = per_frame(self.video_decoder, later).unflatten(1, (-1, self.frames, self.side**2))
            frames = patches.permute(0, 1, 3, 4, 2, 5, 6).flatten(1, 2).flatten(2, 3)
            parts.append(unfold_patches(frames, self.side))
        return torch.cat(parts, dim=2)

    def fold_video(self, frames_B3THW: Tensor) -> Tensor:
        """[B, 3, 8n, H, W] to [B, 3·8·side², n, h, w]; channels ordered (colour, frame, row, column)."""
        patches = fold_patches(frames_B3THW, self.side).unflatten(1, (3, -1)).unflatten(3, (-1, self.frames))
        return patches.permute(0, 1, 4, 2, 3, 5, 6).flatten(1, 3)


def per_frame(layer: Callable[[Tensor], Tensor], x_BCTHW: Tensor) -> Tensor:
    """Apply a layer of images to every frame."""
    B, _, T = x_BCTHW.shape[:3]
    return layer(x_BCTHW.transpose(1, 2).flatten(0, 1)).unflatten(0, (B, T)).transpose(1, 2)
