"""The causal 3D VAE: video of 1 + 8n frames to 1 + n latents and back, at once or chunk by chunk with equal results.

Shapes: B batch, C channels, T frames (or latents), H height, W width. Pixels are in [-1, 1].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.layers import (
    CausalConv3d,
    FrameNorm,
    Middle,
    ResidualLayer,
    SpatialDown,
    SpatialUp,
    TemporalDown,
    TemporalUp,
    fold_patches,
    unfold_patches,
)
from rayramid.models.vae.past import Past, Stream, StreamState
from rayramid.models.vae.patch_skip import PatchSkip


class Block(nn.Module):
    """Residual layers, then another size in space, then another one in time, where there is a module for it."""

    def __init__(
        self, channels_in: int, channels: int, layers: int, groups: int, space: nn.Module | None, time: nn.Module | None
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            ResidualLayer(channels if i else channels_in, channels, groups) for i in range(layers)
        )
        self.space, self.time = space, time

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """[B, C_in, T, H, W] to [B, C, T', H', W']."""
        for layer in self.layers:
            x_BCTHW = layer(x_BCTHW, past)
        if self.space:
            x_BCTHW = self.space(x_BCTHW, past)
        return self.time(x_BCTHW, past) if self.time else x_BCTHW


class Encoder(nn.Module):
    """Pixels to moments: mean and log-variance of each latent, on the channel axis."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.stem_patch = config.stem_patch
        widths, groups = config.encoder_channels, config.norm_groups
        channels = widths[0]
        self.stem = CausalConv3d(3 * config.stem_patch**2, channels)
        self.blocks = nn.ModuleList()
        for width, layers, space, time in zip(
            widths, config.encoder_layers, config.spatial_down, config.temporal_down, strict=True
        ):
            down = SpatialDown(width, config.shortcuts) if space else None
            fewer = TemporalDown(width, config.shortcuts) if time else None
            self.blocks.append(Block(channels, width, layers, groups, down, fewer))
            channels = width
        self.middle = Middle(channels, groups)
        self.norm = FrameNorm(groups, channels)
        self.out = CausalConv3d(channels, 2 * config.latent_channels)
        self.moments = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)

    def forward(self, frames_B3THW: Tensor, past: Past) -> Tensor:
        """[B, 3, (1 +) 8n, H, W] to [B, 2C, (1 +) n, H/8, W/8]."""
        x = self.stem(fold_patches(frames_B3THW, self.stem_patch), past)
        for block in self.blocks:
            x = block(x, past)
        x = self.middle(x, past)
        return self.moments(self.out(F.silu(self.norm(x)), past))


class Decoder(nn.Module):
    """Raw latents to pixels."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.stem_patch = config.stem_patch
        widths, groups = config.decoder_channels, config.norm_groups
        channels = widths[0]
        self.latents = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        self.stem = CausalConv3d(config.latent_channels, channels)
        self.middle = Middle(channels, groups)
        self.blocks = nn.ModuleList()
        for width, layers, space, time in zip(
            widths, config.decoder_layers, config.spatial_up, config.temporal_up, strict=True
        ):
            up = SpatialUp(width, config.shortcuts) if space else None
            more = TemporalUp(width, config.shortcuts) if time else None
            self.blocks.append(Block(channels, width, layers, groups, up, more))
            channels = width
        self.norm = FrameNorm(groups, channels)
        self.out = CausalConv3d(channels, 3 * config.stem_patch**2)

    def forward(self, z_BCTHW: Tensor, past: Past) -> Tensor:
        """[B, C, (1 +) n, H/8, W/8] to [B, 3, (1 +) 8n, H, W]."""
        x = self.middle(self.stem(self.latents(z_BCTHW), past), past)
        for block in self.blocks:
            x = block(x, past)
        return unfold_patches(self.out(F.silu(self.norm(x)), past), self.stem_patch)


class CausalVAE(nn.Module):
    """Encoder, decoder and the statistics of the latents; the statistics are part of `config`.

    With `patch_skip` the network starts at zero, so that the linear codec alone speaks until training begins.
    """

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.patch_skip: PatchSkip | None = None
        if config.patch_skip:
            self.patch_skip = PatchSkip(config.latent_channels, config.spatial_ratio, config.temporal_ratio)
            for silent in (self.encoder.moments, self.decoder.out):
                nn.init.zeros_(silent.weight)
                nn.init.zeros_(silent.bias)  # type: ignore[arg-type]
            # Nearly no posterior noise, sigma = exp(-4.5): more would be most of a good codec's error.
            nn.init.constant_(self.encoder.moments.bias[config.latent_channels :], -9.0)  # type: ignore[index]

    def encode(self, frames_B3THW: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """Encode a video, or the next chunk of one.

        Args:
            frames_B3THW: 1 + 8n frames in [-1, 1] if `state` is None, else 8n; height and width divisible by 8.
            state: what the call for the previous chunk gave; None starts a video.

        Returns:
            Moments [B, 2C, 1 + n (or n), H/8, W/8], and the state for the next chunk.
        """
        stream = Stream(state)
        return self.encode_chunk(frames_B3THW, stream), stream.state()

    def decode(self, z_BCTHW: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """Decode raw latents of a video, or the next chunk of them; any number of latents.

        Returns:
            Frames [B, 3, T, H, W], 8 per latent but one for a video's first; and the state for the next chunk.
        """
        stream = Stream(state)
        return self.decode_chunk(z_BCTHW, stream), stream.state()

    def encode_chunk(self, frames_B3THW: Tensor, past: Past) -> Tensor:
        """Moments of a chunk that follows `past`."""
        T, H, W = frames_B3THW.shape[2:]
        space, time = self.config.spatial_ratio, self.config.temporal_ratio
        if H % space or W % space:
            raise ValueError(f"frames are {W}x{H}; the VAE needs multiples of {space}")
        if T < 1 or (T - past.first) % time:
            raise ValueError(
                f"a {'first' if past.first else 'later'} chunk of {T} frames; the VAE needs "
                f"{'1 + ' if past.first else ''}{time}n"
            )
        moments = self.encoder(frames_B3THW, past)
        if self.patch_skip:
            mean, log_variance = moments.chunk(2, dim=1)
            moments = torch.cat([mean + self.patch_skip.encode(frames_B3THW, past.first), log_variance], dim=1)
        return moments

    def decode_chunk(self, z_BCTHW: Tensor, past: Past) -> Tensor:
        """Frames of a chunk of raw latents that follows `past`."""
        frames = self.decoder(z_BCTHW, past)
        return frames + self.patch_skip.decode(z_BCTHW, past.first) if self.patch_skip else frames

    def normalise(self, z_CTHW: Tensor, first: bool = True) -> Tensor:
        """`config.normalise`: what Session, Pack and DiT see of raw latents."""
        return self.config.normalise(z_CTHW, first)

    def denormalise(self, z_CTHW: Tensor, first: bool = True) -> Tensor:
        """`config.denormalise`: what `decode` takes."""
        return self.config.denormalise(z_CTHW, first)
