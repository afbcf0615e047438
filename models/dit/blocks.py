"""Transformer blocks of the DiT: adaLN-zero modulation per segment, joint attention, MLP.

Shape letters: T tokens, S segments, D width, N heads, H head size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayramid.models.attention import AttentionPlan, attend, attention_dtype
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.embeddings import rotate
from rayramid.models.dit.recompute import Recompute, run
from rayramid.models.precision import rounded, widen, without_autocast
from rayramid.models.sequence_parallel import Split

Past = tuple[Sequence[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Spread:
    """How one row per segment reaches its tokens.

    `runs` are (segments, tokens each) of neighbours of equal length: broadcasting does it, forward and backward. In
    compiled code a list of runs would be a new graph for every pack; there `index_T`, each token's segment, does it.
    """

    runs: tuple[tuple[int, int], ...]
    index_T: Tensor | None = None

    def apply(self, function: Callable[..., Tensor], x_TD: Tensor, *values_SD: Tensor) -> Tensor:
        """`function(x, *values)` with every token's own segment's values."""
        if self.index_T is not None:
            return function(x_TD, *(value[self.index_T] for value in values_SD))
        if not self.runs:
            # No tokens, but the values' gradients: FSDP wants them from every rank.
            return function(x_TD, *(value[:0] for value in values_SD))
        parts = zip(
            x_TD.split([count * length for count, length in self.runs]),
            *(value.split([count for count, _ in self.runs]) for value in values_SD),
            strict=True,
        )
        out = [
            function(part.unflatten(0, (count, length)), *(value[:, None] for value in values)).flatten(0, 1)
            for (count, length), (part, *values) in zip(self.runs, parts, strict=True)
        ]
        return out[0] if len(out) == 1 else torch.cat(out)


@dataclass(frozen=True)
class Layout:
    """What all blocks share about one pack: attention plan, rotations, and the spread of text, video and both.

    All but the plan is about this rank's tokens, if ranks `split` the pack; `texts` counts their text segments.
    """

    plan: AttentionPlan
    rotations: Tensor
    text: Spread
    video: Spread
    joint: Spread
    texts: int
    split: Split | None


def modulate(x_TD: Tensor, shift_SD: Tensor, scale_SD: Tensor, spread: Spread) -> Tensor:
    """LayerNorm without parameters, scaled and shifted per segment."""
    x_TD = F.layer_norm(widen(x_TD), x_TD.shape[-1:], eps=1e-6)
    return spread.apply(
        lambda x, shift, scale: torch.addcmul(shift, x, 1 + scale), x_TD, widen(shift_SD), widen(scale_SD)
    )


def add_gated(x_TD: Tensor, change_TD: Tensor, gate_SD: Tensor, spread: Spread) -> Tensor:
    """`x + gate * change` per segment."""
    gated_TD = spread.apply(lambda change, gate: change * gate, change_TD, gate_SD.to(x_TD.dtype))
    return x_TD + gated_TD


class HeadNorm(nn.Module):
    """RMS norm of each head with a weight shared by the heads."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps


def normalise(qk_T2NH: Tensor, q_norm: HeadNorm, k_norm: HeadNorm) -> Tensor:
    """RMS-normalise queries and keys in one pass, in fp32 at least."""
    x = widen(qk_T2NH)
    # Autocast would take it in low precision.
    with without_autocast(x.device):
        mean_square = torch.linalg.vecdot(x, x).unsqueeze(-1) / x.shape[-1]
    x = x * torch.rsqrt(mean_square + q_norm.eps)
    # The weight is expanded over heads first: its gradient is then one sum over rows.
    weight = widen(rounded(torch.stack([q_norm.weight, k_norm.weight])))[:, None].expand(x.shape[1:]).flatten()
    return (x.flatten(1) * weight).view(x.shape)


def _attention(qk_T2NH: Tensor, v_T1NH: Tensor, layout: Layout, past: Past) -> tuple[Tensor, Tensor, Tensor]:
    """Joint attention of normalised queries and keys [T, D]; with it keys and values [T, N, H] for the cache.

    Ranks that split the pack cache all of its tokens, but only their own heads.
    """
    dtype = attention_dtype(qk_T2NH.dtype, v_T1NH)
    qk_T2NH, v_T1NH = rotate(qk_T2NH, layout.rotations).to(dtype), v_T1NH.to(dtype)
    if layout.split is None:
        q, k = qk_T2NH.unbind(1)
        v = v_T1NH.squeeze(1)
        return attend(q, k, v, layout.plan, past).flatten(1), k, v
    q, k, v = layout.split.to_heads(torch.cat([qk_T2NH, v_T1NH], dim=1)).unbind(1)
    return layout.split.to_tokens(attend(q, k, v, layout.plan, past)).flatten(1), k, v


class MLP(nn.Module):
    """Linear, tanh-GELU, linear."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, ratio * width)
        self.down = nn.Linear(ratio * width, width)

    def forward(self, x_TD: Tensor) -> Tensor:
        """[T, D] -> [T, D]."""
        return self.down(F.gelu(self.up(x_TD), approximate="tanh"))


class Stream(nn.Module):
    """One of the two streams, text or video, of a double block.

    The last text stream of a model without single blocks (`keys_only`) gives queries, keys and values and ends there.
    """

    def __init__(self, config: DiTConfig, *, keys_only: bool = False) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.keys_only = keys_only
        self.modulation = nn.Linear(width, (2 if keys_only else 6) * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = HeadNorm(config.head_dim, config.qk_norm_eps)
        self.k_norm = HeadNorm(config.head_dim, config.qk_norm_eps)
        if not keys_only:
            self.out = nn.Linear(width, width)
            self.mlp = MLP(width, config.mlp_ratio)

    def before(self, x_TD: Tensor, condition_SD: Tensor, spread: Spread) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """Normalised queries and keys [T, 2, N, H], values [T, 1, N, H], and what `after` needs."""
        modulation = self.modulation(condition_SD).unflatten(-1, (-1, x_TD.shape[-1])).unbind(1)
        if self.keys_only:
            scale, shift = modulation
        else:
            shift, scale = modulation[:2]
        qkv = self.qkv(modulate(x_TD, shift, scale, spread)).unflatten(-1, (3, self.heads, -1))
        qk, v = qkv.split([2, 1], dim=1)
        return normalise(qk, self.q_norm, self.k_norm), v, modulation[2:]

    def after(self, x_TD: Tensor, attention_TD: Tensor, modulation: Sequence[Tensor], spread: Spread) -> Tensor:
        """Add the attention's and the MLP's share to the residual stream."""
        if self.keys_only:
            return x_TD
        attention_gate, shift, scale, mlp_gate = modulation
        x_TD = add_gated(x_TD, self.out(attention_TD), attention_gate, spread)
        return add_gated(x_TD, self.mlp(modulate(x_TD, shift, scale, spread)), mlp_gate, spread)


class DoubleBlock(nn.Module):
    """Text and video with weights of their own, one attention (MM-DiT)."""

    def __init__(self, config: DiTConfig, *, keys_only: bool = False) -> None:
        super().__init__()
        self.text = Stream(config, keys_only=keys_only)
        self.video = Stream(config)

    def forward(
        self,
        text_TD: Tensor,
        video_TD: Tensor,
        condition_SD: Tensor,
        layout: Layout,
        past: Past,
        recompute: Recompute = "none",
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Text, video, and the keys and values [T, N, H] of both, text first."""
        return run(self._forward, recompute, text_TD, video_TD, condition_SD, layout, past)

    def _forward(
        self, text_TD: Tensor, video_TD: Tensor, condition_SD: Tensor, layout: Layout, past: Past
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        texts = layout.texts
        text_condition, video_condition = condition_SD.split([texts, len(condition_SD) - texts])
        text_qk, text_v, text_rest = self.text.before(text_TD, text_condition, layout.text)
        video_qk, video_v, video_rest = self.video.before(video_TD, video_condition, layout.video)
        attention_TD, k, v = _attention(torch.cat([text_qk, video_qk]), torch.cat([text_v, video_v]), layout, past)
        text_attention, video_attention = attention_TD.split([len(text_TD), len(video_TD)])
        text_TD = self.text.after(text_TD, text_attention, text_rest, layout.text)
        video_TD = self.video.after(video_TD, video_attention, video_rest, layout.video)
        return text_TD, video_TD, k, v


class SingleBlock(nn.Module):
    """Text and video with the same weights, attention and MLP side by side (Flux)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.modulation = nn.Linear(width, 3 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = HeadNorm(config.head_dim, config.qk_norm_eps)
        self.k_norm = HeadNorm(config.head_dim, config.qk_norm_eps)
        self.mlp_in = nn.Linear(width, config.mlp_ratio * width)
        self.out = nn.Linear((1 + config.mlp_ratio) * width, width)

    def forward(
        self, x_TD: Tensor, condition_SD: Tensor, layout: Layout, past: Past, recompute: Recompute = "none"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The residual stream of text and video, and the keys and values [T, N, H]."""
        return run(self._forward, recompute, x_TD, condition_SD, layout, past)

    def _forward(self, x_TD: Tensor, condition_SD: Tensor, layout: Layout, past: Past) -> tuple[Tensor, Tensor, Tensor]:
        shift, scale, gate = self.modulation(condition_SD).unflatten(-1, (3, -1)).unbind(1)
        modulated_TD = modulate(x_TD, shift, scale, layout.joint)
        qk, v = self.qkv(modulated_TD).unflatten(-1, (3, self.heads, -1)).split([2, 1], dim=1)
        attention_TD, k, v = _attention(normalise(qk, self.q_norm, self.k_norm), v, layout, past)
        mlp_TD = F.gelu(self.mlp_in(modulated_TD), approximate="tanh")
        change_TD = self.out(torch.cat([attention_TD.to(mlp_TD.dtype), mlp_TD], dim=-1))
        return add_gated(x_TD, change_TD, gate, layout.joint), k, v


class Head(nn.Module):
    """From the residual stream to the patches' velocities."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.modulation = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.patch**2 * config.latent_channels)

    def forward(self, x_TD: Tensor, condition_SD: Tensor, spread: Spread) -> Tensor:
        """[T, D] -> [T, p * p * C]."""
        scale, shift = self.modulation(condition_SD).unflatten(-1, (2, -1)).unbind(1)
        return self.out(modulate(x_TD, shift, scale, spread))
