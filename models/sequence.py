"""The packed token sequence: what a DiT eats.

Shape letters: C channels, T latents, H and W latent sides, L text tokens, D text width, P pooled width, Q prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rayramid.models.dit.config import DiTConfig
from rayramid.models.history import Segment, Span, training_rows


@dataclass(frozen=True)
class Prompt:
    """One encoded prompt; `tokens_LD` None says that its K/V already lie in the clip's cache.

    It serves the clip's units from `first_unit` until the next prompt's.
    """

    tokens_LD: Tensor | None
    pooled_P: Tensor
    first_unit: int = 0


@dataclass(frozen=True)
class Piece:
    """A run of latents at one level, a context copy or a noisy target; `start` is its first latent's index."""

    kind: Literal["context", "target"]
    unit: int
    level: int
    latent_CTHW: Tensor
    timestep: float
    start: int
    prompt: int = 0


@dataclass(frozen=True)
class Clip:
    """One row of a pack, unseen by the others: a training clip, a session, one half of a guided session."""

    prompts: tuple[Prompt, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Pack:
    """Segments of any number of clips with their content, in the callers' order; the DiT orders tokens for attention.

    `contents[i]` belongs to `segments[i]`: text tokens [L, D] or a latent [C, t, h, w]; `pooled_QP[prompt_of[i]]` is
    its pooled prompt. `targets` lists, per target piece, the segments that make it up.
    """

    segments: tuple[Segment, ...]
    contents: tuple[Tensor, ...]
    pooled_QP: Tensor
    prompt_of: tuple[int, ...]
    targets: tuple[tuple[int, ...], ...]
    clips: int

    @property
    def length(self) -> int:
        """Number of tokens."""
        return sum(segment.length for segment in self.segments)

    def to(self, device: torch.device | str) -> "Pack":
        """The same pack on another device."""
        contents = tuple(content.to(device, non_blocking=True) for content in self.contents)
        return replace(self, contents=contents, pooled_QP=self.pooled_QP.to(device, non_blocking=True))


def assemble(clips: Sequence[Clip], config: DiTConfig) -> Pack:
    """Put clips into one pack.

    Shared context: one segment per piece, text at timestep 0, positions on the clip's full-resolution grid.
    Official: one segment per latent frame, every token at the target's timestep, positions on the target's grid; or its
    timesteps and grid as in shared context, if they are among the `shared_parts`.
    Raises ValueError for sizes that patch and levels cannot divide, and for what official conditioning cannot say.
    """
    if not clips:
        raise ValueError("no clips: a pack has at least one")
    segments: list[Segment] = []
    contents: list[Tensor] = []
    pooled: list[Tensor] = []
    prompt_of: list[int] = []
    targets: list[tuple[int, ...]] = []
    for row, clip in enumerate(clips):
        _check(clip, config)
        reference, timestep = _told_to_all(clip, config)
        for number, prompt in enumerate(clip.prompts):
            if prompt.tokens_LD is not None:
                text = Segment(
                    row, "text", prompt.first_unit, 0, (len(prompt.tokens_LD), 1, 1), timestep or 0.0, prompt=number
                )
                segments.append(text)
                contents.append(prompt.tokens_LD)
                prompt_of.append(len(pooled) + number)
        for piece in clip.pieces:
            _, frames, height, width = piece.latent_CTHW.shape
            whole = Segment(
                clip=row,
                kind=piece.kind,
                unit=piece.unit,
                level=piece.level,
                grid=(frames, height // config.patch, width // config.patch),
                timestep=piece.timestep if timestep is None else timestep,
                start=piece.start,
                prompt=piece.prompt,
                stride=2 ** (piece.level - reference),
            )
            parts = _frames(whole) if config.conditioning == "official" else [whole]
            if piece.kind == "target":
                targets.append(tuple(range(len(segments), len(segments) + len(parts))))
            segments += parts
            contents += piece.latent_CTHW.split(whole.grid[0] // len(parts), dim=1)
            prompt_of += [len(pooled) + piece.prompt] * len(parts)
        pooled += [prompt.pooled_P for prompt in clip.prompts]
    return Pack(tuple(segments), tuple(contents), torch.stack(pooled), tuple(prompt_of), tuple(targets), len(clips))


def training_segments(
    config: DiTConfig, grid: tuple[int, int, int], text_tokens: int, first_unit: int, units: int, finest: int = 0
) -> list[Segment]:
    """The segments of one training clip without their content: what planning and costs count.

    `grid` is the latent's (T, H, W). Official conditioning has one row (`Segment.clip`) per target.
    """
    latents, height, width = grid
    check_size(height, width, config)
    segments = []
    for row, spans in enumerate(training_spans(config, latents, first_unit, units, finest)):
        segments.append(Segment(row, "text", 0, 0, (text_tokens, 1, 1)))
        for span in spans:
            scale = config.patch * 2**span.level
            tokens = (span.stop - span.start, height // scale, width // scale)
            stride = 2 ** (span.level - (0 if config.shares("one_grid") else spans[-1].level))
            whole = Segment(row, span.kind, span.unit, span.level, tokens, start=span.start, stride=stride)
            segments += _frames(whole) if config.conditioning == "official" else [whole]
    return segments


def training_spans(config: DiTConfig, latents: int, first_unit: int, units: int, finest: int = 0) -> list[list[Span]]:
    """`training_rows` of a configuration."""
    return training_rows(
        latents,
        first_unit,
        units,
        config.levels,
        config.frames_per_unit,
        shared=config.conditioning == "shared_context",
        history_units=config.history_units,
        finest=finest,
    )


def check_size(height: int, width: int, config: DiTConfig) -> None:
    """Raise ValueError unless every level of a `height` x `width` latent divides into patches."""
    multiple = config.side_multiple
    if height < 1 or width < 1 or height % multiple or width % multiple:
        raise ValueError(
            f"latent of {width}x{height}: both sides must be multiples of {multiple} "
            f"(patch {config.patch}, {config.levels} levels)"
        )


def _frames(whole: Segment) -> list[Segment]:
    frames, height, width = whole.grid
    return [replace(whole, grid=(1, height, width), start=whole.start + frame) for frame in range(frames)]


def _told_to_all(clip: Clip, config: DiTConfig) -> tuple[int, float | None]:
    """The level in whose grid a row's positions are counted, and the timestep of all its tokens; None: each its own."""
    if config.conditioning == "shared_context":
        return 0, None
    level, timestep = _official_target(clip)
    return 0 if config.shares("one_grid") else level, None if config.shares("own_time") else timestep


def _official_target(clip: Clip) -> tuple[int, float]:
    """Level and timestep of the one target that a row of official conditioning has."""
    told = {(piece.level, piece.timestep) for piece in clip.pieces if piece.kind == "target"}
    if len(told) != 1 or len(clip.prompts) != 1 or clip.prompts[0].tokens_LD is None:
        raise ValueError(
            "official conditioning: a clip needs one target at one level and timestep, and one prompt with its tokens"
        )
    level, timestep = told.pop()
    if any(piece.level < level for piece in clip.pieces):
        raise ValueError(f"official conditioning: history finer than the target's level {level}")
    return level, timestep


def _check(clip: Clip, config: DiTConfig) -> None:
    for prompt in clip.prompts:
        if prompt.pooled_P.shape != (config.pooled_dim,):
            raise ValueError(
                f"pooled prompt of shape {tuple(prompt.pooled_P.shape)}: the model takes [{config.pooled_dim}]"
            )
        tokens = prompt.tokens_LD
        if tokens is not None and (tokens.dim() != 2 or len(tokens) == 0 or tokens.shape[1] != config.text_dim):
            raise ValueError(f"prompt of shape {tuple(tokens.shape)}: the model takes [L >= 1, {config.text_dim}]")
    full = set()
    for piece in clip.pieces:
        shape = tuple(piece.latent_CTHW.shape)
        if len(shape) != 4 or shape[0] != config.latent_channels or shape[1] < 1:
            raise ValueError(f"latent of shape {shape}: the model takes [{config.latent_channels}, T >= 1, H, W]")
        if not 0 <= piece.level < config.levels:
            raise ValueError(f"level {piece.level}: the model has levels 0 to {config.levels - 1}")
        if not 0 <= piece.prompt < len(clip.prompts):
            raise ValueError(f"prompt {piece.prompt}: the clip has {len(clip.prompts)}")
        full.add((shape[2] * 2**piece.level, shape[3] * 2**piece.level))
    if len(full) > 1:
        raise ValueError(f"pieces of one clip come from latents of different sizes (height, width): {sorted(full)}")
    for height, width in full:
        check_size(height, width, config)
