"""The layers of the causal VAE. Shapes: B batch, C channels, T frames, H height, W width, N = H·W tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayramid.models.vae.past import Past


class CausalConv3d(nn.Conv3d):
    """A 3x3x3 convolution that reads no later frame: zeros around each frame, its past before the first one."""

    def __init__(self, channels_in: int, channels_out: int, stride: tuple[int, int, int] = (1, 1, 1)):
        super().__init__(channels_in, channels_out, kernel_size=3, stride=stride, padding=(0, 1, 1))

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:  # type: ignore[override]
        """Convolve a chunk that is preceded by `past`."""
        return super().forward(past.prepend(x_BCTHW, pad=2, keep=3 - self.stride[0]))

    def _conv_forward(self, x_BCTHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _slow_alone(x_BCTHW):
            return super()._conv_forward(x_BCTHW, weight, bias)
        shape = (self.padding, self.stride, self.dilation, self.groups)
        return torch.ops.aten.mkldnn_convolution(x_BCTHW, weight, bias, *shape)


def _slow_alone(x_BCTHW: Tensor) -> bool:
    """Whether torch convolves it by itself and not by oneDNN, several times faster: one clip on a CPU in fp32."""
    plain = x_BCTHW.dtype == torch.float32 and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return x_BCTHW.is_cpu and len(x_BCTHW) == 1 and plain and torch.backends.mkldnn.is_available()


class FrameNorm(nn.GroupNorm):
    """GroupNorm of every frame by itself: statistics over time would not be causal."""

    def __init__(self, groups: int, channels: int):
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Normalise each frame."""
        frames = x_BCTHW.transpose(1, 2)
        return super().forward(frames.flatten(0, 1)).view_as(frames).transpose(1, 2)


class ResidualLayer(nn.Module):
    """Norm, SiLU, convolution, twice, around a skip."""

    def __init__(self, channels_in: int, channels_out: int, groups: int):
        super().__init__()
        self.norm1 = FrameNorm(groups, channels_in)
        self.conv1 = CausalConv3d(channels_in, channels_out)
        self.norm2 = FrameNorm(groups, channels_out)
        self.conv2 = CausalConv3d(channels_out, channels_out)
        self.skip = nn.Conv3d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """Keep the size, change the channels."""
        hidden = self.conv1(F.silu(self.norm1(x_BCTHW)), past)
        hidden = self.conv2(F.silu(self.norm2(hidden)), past)
        return self.skip(x_BCTHW) + hidden


class FrameAttention(nn.Module):
    """Self-attention with one head among the positions of each frame."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = FrameNorm(groups, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Attend within each frame, add to the input."""
        B, C, T, H, W = x_BCTHW.shape
        tokens = self.norm(x_BCTHW).permute(0, 2, 3, 4, 1).reshape(B * T, 1, H * W, C)
        out = F.scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x_BCTHW + self.to_out(out).view(B, T, H, W, C).permute(0, 4, 1, 2, 3)


class Middle(nn.Module):
    """The coarsest stage: residual layer, attention, residual layer."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.before = ResidualLayer(channels, channels, groups)
        self.attention = FrameAttention(channels, groups)
        self.after = ResidualLayer(channels, channels, groups)

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """Keep the shape."""
        return self.after(self.attention(self.before(x_BCTHW, past)), past)


class SpatialDown(nn.Module):
    """Halves height and width."""

    def __init__(self, channels: int, shortcut: bool):
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=(1, 2, 2))
        self.shortcut = shortcut

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """[B, C, T, H, W] to [B, C, T, H/2, W/2]."""
        out = self.conv(x_BCTHW, past)
        if not self.shortcut:
            return out
        # avg_pool3d has no bf16 on CPU.
        return out + x_BCTHW.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).mean(dim=(4, 6))


class TemporalDown(nn.Module):
    """Halves time; a video's first frame stands alone, so 1 + 2n frames become 1 + n."""

    def __init__(self, channels: int, shortcut: bool):
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=(2, 1, 1))
        self.shortcut = shortcut

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """[B, C, (1 +) 2n, H, W] to [B, C, (1 +) n, H, W]."""
        out = self.conv(x_BCTHW, past)
        if not self.shortcut:
            return out
        alone, pairs = x_BCTHW.split([int(past.first), x_BCTHW.shape[2] - past.first], dim=2)
        return out + torch.cat([alone, pairs.unflatten(2, (-1, 2)).mean(3)], dim=2)


class SpatialUp(nn.Module):
    """Doubles height and width: a convolution to 4C, folded out as (c, row, column)."""

    def __init__(self, channels: int, shortcut: bool):
        super().__init__()
        self.conv = CausalConv3d(channels, 4 * channels)
        self.shortcut = shortcut

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """[B, C, T, H, W] to [B, C, T, 2H, 2W]."""
        out = unfold_patches(self.conv(x_BCTHW, past), 2)
        return out + x_BCTHW.repeat_interleave(2, 3).repeat_interleave(2, 4) if self.shortcut else out


class TemporalUp(nn.Module):
    """Doubles time: a convolution to 2C, folded out as (c, frame); the first frame of a video stays alone."""

    def __init__(self, channels: int, shortcut: bool):
        super().__init__()
        self.conv = CausalConv3d(channels, 2 * channels)
        self.shortcut = shortcut

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """[B, C, (1 +) n, H, W] to [B, C, (1 +) 2n, H, W]."""
        out = self.conv(x_BCTHW, past).unflatten(1, (-1, 2)).transpose(2, 3).flatten(2, 3)
        if self.shortcut:
            out = out + x_BCTHW.repeat_interleave(2, 2)
        return out[:, :, 1:] if past.first else out


def fold_patches(x_BCTHW: Tensor, side: int) -> Tensor:
    """[B, C, T, H, W] to [B, C·side², T, H/side, W/side]; channels ordered (c, row, column)."""
    if side == 1:
        return x_BCTHW
    x = x_BCTHW.unflatten(4, (-1, side)).unflatten(3, (-1, side))
    return x.permute(0, 1, 4, 6, 2, 3, 5).flatten(1, 3)


def unfold_patches(x_BCTHW: Tensor, side: int) -> Tensor:
    """[B, C·side², T, H, W] to [B, C, T, H·side, W·side]; the inverse of `fold_patches`."""
    if side == 1:
        return x_BCTHW
    x = x_BCTHW.unflatten(1, (-1, side, side))
    return x.permute(0, 1, 4, 5, 2, 6, 3).flatten(5, 6).flatten(3, 4)
