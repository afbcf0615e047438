"""PatchGAN discriminators of videos: a score for every patch, of single frames or of frames with their past.

The published ones use batch statistics; here every frame is normalised by itself, so that the score of a clip depends
neither on the clips beside it nor on how it is shared over ranks.
Shapes: B batch, C channels, T frames, H height, W width.
"""

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from rayramid.models.vae.layers import CausalConv3d, FrameNorm
from rayramid.models.vae.past import Past
from rayramid.models.vae.patch_skip import per_frame

SLOPE = 0.2
# Channels grow by two per layer, up to this factor.
WIDEST = 8


class FrameConv(nn.Conv2d):
    """The 4x4 convolution of PatchGAN, on every frame by itself."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__(channels_in, channels_out, kernel_size=4, stride=stride, padding=1)

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:  # type: ignore[override]
        """Convolve each frame; the past is not looked at."""
        return per_frame(super().forward, x_BCTHW)


class VideoConv(CausalConv3d):
    """A causal 3x3x3 convolution that keeps all frames."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__(channels_in, channels_out, stride=(1, stride, stride))


class PatchDiscriminator(nn.Module):
    """Scores patches of a video: high is real.

    Args:
        kind: `frame` sees single frames, as published; `video` sees each frame with the ones before it.
        channels: of the first layer.
        layers: layers that halve height and width.
    """

    def __init__(self, kind: Literal["frame", "video"] = "frame", channels: int = 64, layers: int = 3):
        super().__init__()
        conv = FrameConv if kind == "frame" else VideoConv
        widths = [channels * min(2**i, WIDEST) for i in range(layers + 1)]
        self.stem = conv(3, channels, stride=2)
        # The last of them keeps the size.
        self.convs = nn.ModuleList(
            conv(widths[i], widths[i + 1], stride=2 if i + 1 < layers else 1) for i in range(layers)
        )
        self.norms = nn.ModuleList(FrameNorm(groups=math.gcd(32, width), channels=width) for width in widths[1:])
        self.out = conv(widths[-1], 1, stride=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, frames_B3THW: Tensor, past: Past) -> Tensor:
        """Frames in [-1, 1], which follow `past`, to scores [B, 1, T, H/8, W/8] or nearly so."""
        x = F.leaky_relu(self.stem(frames_B3THW, past), SLOPE)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x, past)), SLOPE)
        return self.out(x, past)
