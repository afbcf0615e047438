"""The diffusion transformer: packs in, velocities out. One class for MM-DiT and Flux, shared context and official.

Shape letters: T tokens, S segments, D width, L text tokens, C channels.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import groupby

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.nn import functional as F

from rayramid.models.attention import AttentionPlan, Executor, plan_attention
from rayramid.models.cache import Cache
from rayramid.models.dit.blocks import DoubleBlock, Head, Layout, Past, SingleBlock, Spread
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.embeddings import (
    TIME_FREQUENCIES,
    TwoLayer,
    patchify,
    positions,
    rotations,
    table_positions,
    timestep_waves,
    unpatchify,
)
from rayramid.models.dit.recompute import Recompute
from rayramid.models.flops import is_visible
from rayramid.models.history import Segment
from rayramid.models.precision import widen, without_autocast
from rayramid.models.sequence import Pack
from rayramid.models.sequence_parallel import Part, Tokens


class DiT(nn.Module):
    """Predicts the velocity `x_end - x_start` (Eq. 11) of every target in a pack.

    `executor` chooses the attention (None: flex on CUDA, else sdpa); `recompute` is activation checkpointing, and with
    `full` the blocks' inputs wait in the host's memory if `offload_inputs`. The ranks of a `sequence_group` split every
    pack between them and have to call alike.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.executor: Executor | None = None
        self.recompute: Recompute = "none"
        self.offload_inputs = False
        self.sequence_group: dist.ProcessGroup | None = None
        width = config.width
        self.patch_in = nn.Linear(config.patch**2 * config.latent_channels, width)
        self.text_in = nn.Linear(config.text_dim, width)
        self.time_in = TwoLayer(2 * TIME_FREQUENCIES, width)
        self.pooled_in = TwoLayer(config.pooled_dim, width)
        if config.shares("roles"):
            self.role_tokens = nn.Parameter(torch.empty(config.roles, width))
            self.role_times = nn.Parameter(torch.empty(config.roles, width))
        last = config.double_blocks - 1
        self.double_blocks = nn.ModuleList(
            DoubleBlock(config, keys_only=number == last and not config.single_blocks)
            for number in range(config.double_blocks)
        )
        self.single_blocks = nn.ModuleList(SingleBlock(config) for _ in range(config.single_blocks))
        self.head = Head(config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise: the output and all modulation at zero, gates open enough that every block trains at once."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
                if name.endswith("modulation"):
                    nn.init.zeros_(module.weight)
                    _gates(module.bias, self.config.width).fill_(len(self.blocks) ** -0.5)
        nn.init.zeros_(self.head.out.weight)
        if self.config.shares("roles"):
            nn.init.zeros_(self.role_tokens)
            nn.init.zeros_(self.role_times)

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in order; what to wrap for sharding."""
        return [*self.double_blocks, *self.single_blocks]

    def forward(self, pack: Pack, caches: Sequence[Cache | None] | None = None) -> list[Tensor]:
        """Velocities [C, t, h, w] of the pack's target pieces, in the callers' order.

        `caches[i]`, if given, holds what clip i saw before; the pack's text and context join it.
        """
        raw = self.network(pack, caches)
        # The published weights predict the opposite direction.
        return [-velocity for velocity in raw] if self.config.conditioning == "official" else raw

    def network(self, pack: Pack, caches: Sequence[Cache | None] | None = None) -> list[Tensor]:
        """The network's raw output, before the sign of official weights."""
        held = self._caches(pack, caches)
        cached = [replace(segment, clip=row) for row, cache in enumerate(held) if cache for segment in cache.segments]
        device = self.patch_in.weight.device
        executor = self.executor or ("flex" if device.type == "cuda" else "sdpa")
        plan = plan_attention(pack.segments, cached, self._sees, executor=executor, device=device)
        tokens = Tokens.of([pack.segments[index] for index in plan.order], self.sequence_group, self.config.heads)
        self._check_history(tokens.segments, plan)
        past = [_past(held, block) for block in range(len(self.blocks))]
        with self._autocast():
            text_TD, video_TD, condition_SD, layout = self._embed(pack, plan, tokens)
            with save_on_cpu(pin_memory=device.type == "cuda") if self.offload_inputs else nullcontext():
                video_TD, pairs = self.run_blocks(text_TD, video_TD, condition_SD, layout, past, keep=any(held))
            velocities = self._velocities(pack, plan, tokens, video_TD, condition_SD)
        for number, segment in enumerate(tokens.segments):
            cache = held[segment.clip]
            if cache is not None and segment.kind != "target":
                start = sum(plan.lengths[:number])
                part = slice(start, start + segment.length)
                cache.append(segment, [(keys[part], values[part]) for keys, values in pairs])
        return velocities

    def run_blocks(
        self,
        text_TD: Tensor,
        video_TD: Tensor,
        condition_SD: Tensor,
        layout: Layout,
        past: Sequence[Past],
        *,
        keep: bool = False,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """All blocks: the video's residual stream and, if `keep`, every block's keys and values."""
        pairs = []
        doubles = len(self.double_blocks)
        for block, before in zip(self.double_blocks, past[:doubles], strict=True):
            text_TD, video_TD, k, v = block(text_TD, video_TD, condition_SD, layout, before, self.recompute)
            pairs += [(k, v)] if keep else []
        x_TD = torch.cat([text_TD, video_TD])
        for block, before in zip(self.single_blocks, past[doubles:], strict=True):
            x_TD, k, v = block(x_TD, condition_SD, layout, before, self.recompute)
            pairs += [(k, v)] if keep else []
        return x_TD[len(text_TD) :], pairs

    def compile_blocks(self) -> None:
        """Compile each block (fullgraph). Worth its time on GPUs; on CPUs every new pack layout compiles again."""
        for block in self.blocks:
            # Not the call but what it calls: hooks of FSDP stay outside.
            block.forward = torch.compile(block.forward, fullgraph=True)

    def _autocast(self) -> AbstractContextManager[object]:
        """Weights in low precision multiply in it; everything else stays exact, as under a caller's autocast."""
        weight = self.patch_in.weight
        low = weight.dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(weight.device.type, weight.dtype) if low else nullcontext()

    def _sees(self, query: Segment, key: Segment) -> bool:
        return is_visible(self.config, query, key)

    def _caches(self, pack: Pack, caches: Sequence[Cache | None] | None) -> Sequence[Cache | None]:
        if caches is None:
            return [None] * pack.clips
        if self.config.conditioning == "official":
            raise ValueError("official conditioning has no cache: each target carries its own context")
        if len(caches) != pack.clips:
            raise ValueError(f"{len(caches)} caches for {pack.clips} clips: there must be one each, or None")
        return caches

    def _check_history(self, segments: Sequence[Segment], plan: AttentionPlan) -> None:
        """Every segment of shared context must find its text and all of its history, once."""
        if self.config.conditioning == "official":
            return
        for segment, visible in zip(segments, plan.visible, strict=True):
            bound = self.config.history_units
            history = segment.unit if bound is None else min(segment.unit, bound)
            expected = 1 if segment.kind == "text" else 2 + history
            if len(visible) != expected:
                raise ValueError(
                    f"clip {segment.clip}: {segment.kind} of unit {segment.unit} at level {segment.level} sees "
                    f"{len(visible)} segments, not {expected}: text and context must be in pack or cache, each once"
                )

    def _embed(self, pack: Pack, plan: AttentionPlan, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor, Layout]:
        """Own tokens of text and video, the condition of each segment that has some, and what the blocks share."""
        weight = self.patch_in.weight
        exact = torch.promote_types(weight.dtype, torch.float32)
        turns = rotations(positions(tokens.segments)[tokens.own].to(weight.device), self.config.rope_axes, exact)
        words, video = tokens.text, tokens.video
        layout = _layout(plan, tokens, turns)

        # The residual stream is exact from the start.
        embeddings = [self._content(pack, plan, part)[part.tokens] for part in words]
        text_TD = widen(self.text_in(torch.cat([weight.new_empty(0, self.config.text_dim), *embeddings])))
        patches = [patchify(self._content(pack, plan, part), self.config.patch)[part.tokens] for part in video]
        video_TD = widen(self.patch_in(torch.cat([weight.new_empty(0, weight.shape[1]), *patches])))
        if self.config.position_table:
            table = [table_positions(part.segment, self.config, exact)[part.tokens] for part in video]
            video_TD = video_TD + torch.cat([torch.empty(0, self.config.width), *table]).to(video_TD)

        prompts = torch.tensor([pack.prompt_of[plan.order[part.number]] for part in tokens.mine], device=weight.device)
        timesteps = torch.tensor([part.segment.timestep for part in tokens.mine], device=weight.device)
        with without_autocast(weight.device):
            time_SD = self.time_in(timestep_waves(timesteps.to(exact)))
            pooled_SD = self.pooled_in(pack.pooled_QP.to(weight.device))[prompts]
        condition_SD = time_SD + pooled_SD
        if self.config.shares("roles"):
            roles = torch.tensor([self._role(part.segment) for part in tokens.mine], device=weight.device)
            condition_SD = condition_SD + self.role_times[roles]
            text_roles, video_roles = self.role_tokens[roles].split([len(words), len(video)])
            text_TD = layout.text.apply(torch.add, text_TD, text_roles)
            video_TD = layout.video.apply(torch.add, video_TD, video_roles)
        return text_TD, video_TD, F.silu(condition_SD), layout

    def _content(self, pack: Pack, plan: AttentionPlan, part: Part) -> Tensor:
        weight = self.patch_in.weight
        return pack.contents[plan.order[part.number]].to(weight.device, weight.dtype)

    def _role(self, segment: Segment) -> int:
        if segment.kind == "text":
            return 0
        return 1 + segment.level + (self.config.levels if segment.kind == "target" else 0)

    def _velocities(
        self, pack: Pack, plan: AttentionPlan, tokens: Tokens, video_TD: Tensor, condition_SD: Tensor
    ) -> list[Tensor]:
        """Of all target pieces: ranks that split the pack give each other theirs."""
        if not pack.targets:
            return []
        own = zip(tokens.video, video_TD.split([part.length for part in tokens.video]), strict=True)
        x_TD = torch.cat([video_TD[:0], *(x for part, x in own if part.segment.kind == "target")])
        places = [place for place, part in enumerate(tokens.mine) if part.segment.kind == "target"]
        lengths = [tokens.mine[place].length for place in places]
        spread = _spread(lengths, indexed=plan.flex is not None, device=x_TD.device)
        out = tokens.gather_targets(widen(self.head(x_TD, condition_SD[places], spread)))
        targets = [(number, segment) for number, segment in enumerate(tokens.segments) if segment.kind == "target"]
        velocity = {
            plan.order[number]: unpatchify(part, segment.grid, self.config.patch)
            for (number, segment), part in zip(
                targets, out.split([segment.length for _, segment in targets]), strict=True
            )
        }
        return [torch.cat([velocity[index] for index in target], dim=1) for target in pack.targets]


def _gates(bias: Tensor, width: int) -> Tensor:
    """Modulation comes as (shift, scale, gate) once or twice, or as (scale, shift)."""
    return bias.detach().view(-1, width)[2::3]


def _past(caches: Sequence[Cache | None], block: int) -> Past:
    pasts = [cache.past(block) for cache in caches if cache]
    return [tensor for keys, _ in pasts for tensor in keys], [tensor for _, values in pasts for tensor in values]


def _layout(plan: AttentionPlan, tokens: Tokens, turns: Tensor) -> Layout:
    text, video, joint = (
        _spread([part.length for part in parts], indexed=plan.flex is not None, device=turns.device)
        for parts in (tokens.text, tokens.video, tokens.mine)
    )
    return Layout(plan, turns, text, video, joint, len(tokens.text), tokens.split)


def _spread(lengths: Sequence[int], *, indexed: bool, device: torch.device) -> Spread:
    runs = tuple((len(list(run)), length) for length, run in groupby(lengths))
    if not indexed:
        return Spread(runs)
    counts = torch.tensor(lengths, dtype=torch.long, device=device)
    return Spread(runs, torch.repeat_interleave(torch.arange(len(lengths), device=device), counts))
