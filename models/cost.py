"""What a configuration costs before anything is rented: tokens, operations, memory.

Every count asks the visibility rule about the segments that training and sampling really have.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from rayramid.models.card import VAE_STRIDE
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.recompute import Recompute
from rayramid.models.errors import UserError
from rayramid.models.flops import TRAINING_FACTOR, forward_flops, full_sequence_of, official_of, parameter_count
from rayramid.models.history import Segment, last_use, unit_count, unit_span
from rayramid.models.memory import Fit, activation_bytes, cache_bytes, fits, pack_size
from rayramid.models.presets import preset
from rayramid.models.sequence import training_segments

UNITS_PER_CLIP = (1, 2, 4)
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class Stage:
    """One stage; `grid` is the tokens (h, w) of one latent.

    `separate_tokens` is the last unit's sequence of its own, history and target without text; `mean_separate_tokens`
    the mean of those of all units.
    """

    level: int
    grid: tuple[int, int]
    target_tokens: int
    separate_tokens: int
    mean_separate_tokens: float


@dataclass(frozen=True)
class Training:
    """Training all stages of `units_per_clip` consecutive units, the mean over where in the clip they lie.

    Operations are those of forward and backward, nothing recomputed; a step takes `flops_per_sequence` for each of its
    sequences. `stage_tokens` are the tokens at each stage's level, coarsest first and without text, for each target of
    the stage. The ratios are how many times more a separate sequence for each target takes, as the published code has
    it.
    """

    units_per_clip: int
    tokens_per_sequence: float
    largest_sequence: int
    flops_per_sequence: float
    stage_tokens: tuple[float, ...]
    tokens_per_target: float
    flops_per_target: float
    token_ratio: float
    flop_ratio: float


@dataclass(frozen=True)
class Sampling:
    """One video: operations, guidance included, and the K/V cache of its busiest unit in bf16.

    `recomputed_flops` runs all history again in each step, as published; `full_sequence_flops` denoises all latents at
    full resolution at once, in as many steps as a later unit has.
    """

    steps: tuple[tuple[int, ...], tuple[int, ...]]
    guided: bool
    flops: int
    recomputed_flops: int
    full_sequence_flops: int
    cached_tokens: int
    cache_bytes: int
    cache_bytes_without_eviction: int


@dataclass(frozen=True)
class Plan:
    """The cost of a preset at a size and length; `full_sequence_tokens` is full-sequence diffusion, without text."""

    preset: str
    width: int
    height: int
    frames: int
    latents: int
    units: int
    parameters: int
    full_sequence_tokens: int
    pyramid_tokens: int
    stages: list[Stage]
    training: list[Training]
    activation_bytes: dict[Recompute, int]
    sampling: Sampling
    fits: list[Fit]


def plan_cost(
    name: str,
    width: int,
    height: int,
    frames: int,
    *,
    text_tokens: int = 128,
    steps: tuple[Sequence[int], Sequence[int]] | None = None,
    guided: bool = True,
) -> Plan:
    """The cost of preset `name` for videos of `width` x `height` pixels and `frames` frames.

    Args:
        name: a preset.
        width: pixels.
        height: pixels.
        frames: 1 + 8n, 1 for an image.
        text_tokens: of a prompt.
        steps: per stage, coarsest first, of the first unit and of later ones; 20 and 10 by default.
        guided: whether each step runs with and without the prompt.

    Raises:
        UserError: no such preset, or a size or length that it can't make; says which it can.
    """
    config = preset(name)
    grid = latent_grid(config, width, height, frames)
    latents = grid[0]
    units = unit_count(latents, config.frames_per_unit)
    first, later = steps or ((20,) * config.levels, (10,) * config.levels)
    separate = [_official(config, grid, text_tokens, unit) for unit in range(units)]
    stages = [_stage(config, grid, rows, text_tokens) for rows in zip(*map(_rows, separate), strict=True)]
    parameters = parameter_count(config)
    training = [
        _training(config, grid, text_tokens, separate, count)
        for count in sorted({*(k for k in UNITS_PER_CLIP if k < units), units})
    ]
    longest = pack_size(config, training_segments(config, grid, text_tokens, units - 1, 1))
    activations = {how: activation_bytes(config, longest, how) for how in RECOMPUTE}
    sampling = _sampling(config, grid, text_tokens, (tuple(first), tuple(later)), guided)
    return Plan(
        preset=name,
        width=width,
        height=height,
        frames=frames,
        latents=latents,
        units=units,
        parameters=parameters,
        full_sequence_tokens=latents * _tokens(config, grid, 0),
        pyramid_tokens=max(stage.separate_tokens for stage in stages),
        stages=stages,
        training=training,
        activation_bytes=activations,
        sampling=sampling,
        fits=fits(config, parameters, activations["full"], sampling.cache_bytes, _tokens(config, grid, 0)),
    )


def latent_grid(config: DiTConfig, width: int, height: int, frames: int) -> tuple[int, int, int]:
    """Latent (T, H, W) of a video; UserError says which sizes and lengths the configuration can make."""
    multiple = VAE_STRIDE * config.side_multiple
    if width < 1 or height < 1 or width % multiple or height % multiple:
        raise UserError(f"size {width}x{height}: both sides must be multiples of {multiple} pixels")
    per_unit = VAE_STRIDE * (config.frames_per_unit or 1)
    if frames < 1 or frames % per_unit != 1:
        raise UserError(f"{frames} frames: must be 1 + a multiple of {per_unit}")
    return 1 + frames // VAE_STRIDE, height // VAE_STRIDE, width // VAE_STRIDE


def live_copies(config: DiTConfig, grid: tuple[int, int, int], unit: int, *, evict: bool = True) -> list[Segment]:
    """Context copies in the K/V cache while `unit` is made."""
    copies = []
    for past in range(unit):
        for level in range(config.levels):
            last = last_use(past, level, config.levels, config.history_units) if evict else None
            if last is None or last >= unit:
                copies.append(_video_segment(config, grid, "context", past, level))
    return copies


def _training(
    config: DiTConfig, grid: tuple[int, int, int], text_tokens: int, separate: Sequence[list[Segment]], count: int
) -> Training:
    windows = [training_segments(config, grid, text_tokens, unit, count) for unit in range(len(separate) - count + 1)]
    tokens = [_length(window) for window in windows]
    flops = [TRAINING_FACTOR * forward_flops(config, window) for window in windows]
    official = official_of(config)
    their_tokens = [_length(unit) for unit in separate]
    their_flops = [TRAINING_FACTOR * forward_flops(official, unit) for unit in separate]
    spans = [slice(start, start + count) for start in range(len(windows))]
    targets = count * config.levels
    return Training(
        units_per_clip=count,
        tokens_per_sequence=fmean(tokens),
        largest_sequence=max(tokens),
        flops_per_sequence=fmean(flops),
        stage_tokens=tuple(
            fmean(_length(part for part in window if part.kind != "text" and part.level == level) for window in windows)
            / count
            for level in reversed(range(config.levels))
        ),
        tokens_per_target=fmean(tokens) / targets,
        flops_per_target=fmean(flops) / targets,
        token_ratio=sum(sum(their_tokens[span]) for span in spans) / sum(tokens),
        flop_ratio=sum(sum(their_flops[span]) for span in spans) / sum(flops),
    )


def _sampling(
    config: DiTConfig,
    grid: tuple[int, int, int],
    text_tokens: int,
    steps: tuple[tuple[int, ...], tuple[int, ...]],
    guided: bool,
) -> Sampling:
    if any(len(unit) != config.levels or min(unit) < 1 for unit in steps):
        raise UserError(f"steps {steps}: each of the {config.levels} stages takes at least 1")
    text = Segment(0, "text", 0, 0, (text_tokens, 1, 1))
    official = official_of(config)
    units = unit_count(grid[0], config.frames_per_unit)
    flops, recomputed = forward_flops(config, [text]), 0
    for unit in range(units):
        older = live_copies(config, grid, unit - 1)
        newest = [_video_segment(config, grid, "context", unit - 1, level) for level in range(config.levels)]
        flops += forward_flops(config, newest, [text, *older]) if unit else 0
        cached = [text, *live_copies(config, grid, unit)]
        counts = dict(zip(reversed(range(config.levels)), steps[min(unit, 1)], strict=True))
        for level, count in counts.items():
            flops += count * forward_flops(config, [_video_segment(config, grid, "target", unit, level)], cached)
        for row in _rows(_official(config, grid, text_tokens, unit)):
            recomputed += counts[row[-1].level] * forward_flops(official, row)
    whole = full_sequence_of(config)
    full_sequence = sum(steps[1]) * forward_flops(whole, training_segments(whole, grid, text_tokens, 0, 1))
    live = [text_tokens + _length(live_copies(config, grid, unit)) for unit in range(units)]
    everything = text_tokens + _length(live_copies(config, grid, units - 1, evict=False))
    sides = 2 if guided else 1
    return Sampling(
        steps=steps,
        guided=guided,
        flops=sides * flops,
        recomputed_flops=sides * recomputed,
        full_sequence_flops=sides * full_sequence,
        cached_tokens=max(live),
        cache_bytes=sides * cache_bytes(config, max(live)),
        cache_bytes_without_eviction=sides * cache_bytes(config, everything),
    )


def _official(config: DiTConfig, grid: tuple[int, int, int], text_tokens: int, unit: int) -> list[Segment]:
    """Every stage of a unit as a sequence of its own."""
    return training_segments(official_of(config), grid, text_tokens, unit, 1)


def _rows(segments: Sequence[Segment]) -> list[list[Segment]]:
    rows: dict[int, list[Segment]] = {}
    for segment in segments:
        rows.setdefault(segment.clip, []).append(segment)
    return list(rows.values())


def _stage(config: DiTConfig, grid: tuple[int, int, int], rows: Sequence[Sequence[Segment]], text_tokens: int) -> Stage:
    """One stage from the separate sequences of all units."""
    longest, level = rows[-1], rows[-1][-1].level
    scale = config.patch * 2**level
    return Stage(
        level=level,
        grid=(grid[1] // scale, grid[2] // scale),
        target_tokens=_length(segment for segment in longest if segment.kind == "target"),
        separate_tokens=_length(longest) - text_tokens,
        mean_separate_tokens=fmean(_length(row) - text_tokens for row in rows),
    )


def _video_segment(config: DiTConfig, grid: tuple[int, int, int], kind: str, unit: int, level: int) -> Segment:
    start, stop = unit_span(unit, config.frames_per_unit, grid[0])
    scale = config.patch * 2**level
    tokens = (stop - start, grid[1] // scale, grid[2] // scale)
    return Segment(0, "context" if kind == "context" else "target", unit, level, tokens, start=start)


def _tokens(config: DiTConfig, grid: tuple[int, int, int], level: int) -> int:
    scale = config.patch * 2**level
    return (grid[1] // scale) * (grid[2] // scale)


def _length(segments: Iterable[Segment]) -> int:
    return sum(segment.length for segment in segments)
