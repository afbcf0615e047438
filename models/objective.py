"""The training loss of one packed batch.

Shape letters: C channels, T latents, H and W latent sides, L text tokens, D text width, P pooled width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rayramid.models.dit.config import DiTConfig
from rayramid.models.history import Span
from rayramid.models.precision import widen
from rayramid.models.pyramid import TIMESTEPS, Pyramid, down
from rayramid.models.sequence import Clip, Pack, Piece, Prompt, assemble, check_size, training_spans

# Streams of random numbers of one clip's visit.
SIGMA, TIME, NOISE, CORRUPTION, TEXT = range(5)


@dataclass(frozen=True)
class TrainingClip:
    """One visit of a clip: its normalised latent, one caption, and the units to train.

    `key` identifies the visit (clip and epoch): with the seed it decides all its random draws. Stages down to level
    `finest` are trained.
    """

    latent_CTHW: Tensor
    text_LD: Tensor
    pooled_P: Tensor
    first_unit: int
    units: int
    key: int
    finest: int = 0


class Text(NamedTuple):
    """An encoded prompt."""

    tokens_LD: Tensor
    pooled_P: Tensor


@dataclass(frozen=True)
class Targets:
    """The answers of a pack's targets, in the pack's order, and the unit, level and local time (0 to 1) of each."""

    velocities: tuple[Tensor, ...]
    units: tuple[int, ...]
    levels: tuple[int, ...]
    times: tuple[float, ...]

    def to(self, device: torch.device | str) -> "Targets":
        """The same targets on another device."""
        return replace(self, velocities=tuple(v.to(device, non_blocking=True) for v in self.velocities))


@dataclass(frozen=True)
class Loss:
    """Mean squared errors [targets]; a target counts the same whatever its number of tokens.

    `errors` carries the gradient; `table` is for logs.
    """

    errors: Tensor
    units: tuple[int, ...]
    levels: tuple[int, ...]
    times: tuple[float, ...]

    @property
    def mean(self) -> Tensor:
        """The mean over targets; over several workers, `total()` divided by the global number of targets."""
        return self.errors.mean()

    def total(self, weights: Sequence[float] | None = None) -> Tensor:
        """Sum over targets, each times the weight of its level (level 0, full resolution, first) if there are any."""
        if weights is None:
            return self.errors.sum()
        return (self.errors * self.errors.new_tensor([weights[level] for level in self.levels])).sum()

    @property
    def count(self) -> int:
        """Number of targets."""
        return len(self.units)

    def table(self) -> dict[tuple[int, int], tuple[float, int]]:
        """By (level, unit): sum of errors and number of targets."""
        cells: dict[tuple[int, int], tuple[float, int]] = {}
        for unit, level, error in zip(self.units, self.levels, self.errors.detach().tolist(), strict=True):
            total, count = cells.get((level, unit), (0.0, 0))
            cells[level, unit] = (total + error, count + 1)
        return cells


def training_pack(
    clips: Sequence[TrainingClip],
    config: DiTConfig,
    pyramid: Pyramid,
    *,
    seed: int,
    history_noise: float = 1 / 3,
    text_dropout: float = 0.0,
    empty_text: Text | None = None,
) -> tuple[Pack, Targets]:
    """The stages of each clip's units, noised, with the context they need, and the velocities to predict (Eq. 9-11).

    Noise, time, corruption and text dropout depend on (seed, clip.key) and on (unit, level) alone, so neither on the
    packing nor on the worker. The context of a clip's visit is corrupted with one sigma, uniform in [0, history_noise),
    and an independent noise per copy; shared context is told 1000 sigma. `empty_text` replaces a dropped prompt.

    Raises:
        ValueError: latents that are not finite, or of a size or length that pyramid, patch or units cannot divide.
    """
    if pyramid.levels != config.levels:
        raise ValueError(f"the pyramid has {pyramid.levels} levels, the model {config.levels}: they must be the same")
    for name, share in (("history_noise", history_noise), ("text_dropout", text_dropout)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}; it must be from 0 to 1")
    if text_dropout and empty_text is None:
        raise ValueError("text_dropout needs empty_text, the empty prompt's embedding")
    rows: list[Clip] = []
    velocities: list[Tensor] = []
    names: list[Span] = []
    times: list[float] = []
    for clip in clips:
        _check(clip, config)
        draws = _Draws(seed, clip)
        dropped = text_dropout > 0 and draws.uniform(TEXT) < text_dropout
        text = empty_text if dropped and empty_text is not None else Text(clip.text_LD, clip.pooled_P)
        sigma = history_noise * draws.uniform(SIGMA)
        for spans in training_spans(config, clip.latent_CTHW.shape[1], clip.first_unit, clip.units, clip.finest):
            pieces = []
            for span in spans:
                if span.kind == "context":
                    pieces.append(_context(span, clip, draws, sigma))
                else:
                    piece, velocity, time = _target(span, clip, draws, pyramid)
                    pieces.append(piece)
                    velocities.append(velocity)
                    names.append(span)
                    times.append(time)
            rows.append(Clip((Prompt(text.tokens_LD, text.pooled_P),), tuple(pieces)))
    units, levels = tuple(span.unit for span in names), tuple(span.level for span in names)
    return assemble(rows, config), Targets(tuple(velocities), units, levels, tuple(times))


def objective(velocities: Sequence[Tensor], targets: Targets) -> Loss:
    """The mean squared error of each predicted velocity, in fp32 at least."""
    errors = []
    for predicted, target in zip(velocities, targets.velocities, strict=True):
        errors.append((widen(predicted) - target).square().mean())
    return Loss(torch.stack(errors), targets.units, targets.levels, targets.times)


class _Draws:
    """The random numbers of one visit, each addressed by its purpose, unit and level."""

    def __init__(self, seed: int, clip: TrainingClip) -> None:
        self._address = (seed, clip.key)
        self._latent = clip.latent_CTHW

    def uniform(self, purpose: int, span: Span | None = None) -> float:
        return float(self._generator(purpose, span).random())

    def noise(self, purpose: int, span: Span, shape: torch.Size) -> Tensor:
        noise = torch.from_numpy(self._generator(purpose, span).standard_normal(shape, dtype=np.float32))
        return noise.to(self._latent)

    def _generator(self, purpose: int, span: Span | None) -> np.random.Generator:
        place = (0, 0) if span is None else (span.unit, span.level)
        return np.random.default_rng((*self._address, purpose, *place))


def _context(span: Span, clip: TrainingClip, draws: _Draws, sigma: float) -> Piece:
    clean = down(clip.latent_CTHW[:, span.start : span.stop], span.level)
    if sigma:
        clean = sigma * draws.noise(CORRUPTION, span, clean.shape) + (1 - sigma) * clean
    return Piece("context", span.unit, span.level, clean, TIMESTEPS * sigma, span.start)


def _target(span: Span, clip: TrainingClip, draws: _Draws, pyramid: Pyramid) -> tuple[Piece, Tensor, float]:
    clean = clip.latent_CTHW[:, span.start : span.stop]
    start, end = pyramid.endpoints(clean, draws.noise(NOISE, span, clean.shape), span.level)
    time = pyramid.local_time(torch.tensor(draws.uniform(TIME, span), dtype=torch.float64))
    noisy = torch.lerp(start, end, float(time))
    timestep = float(pyramid.timestep(span.level, time))
    return Piece("target", span.unit, span.level, noisy, timestep, span.start), end - start, float(time)


def _check(clip: TrainingClip, config: DiTConfig) -> None:
    latent = clip.latent_CTHW
    if latent.dim() != 4:
        raise ValueError(f"latent of shape {tuple(latent.shape)}: must be [C, T, H, W]")
    check_size(latent.shape[2], latent.shape[3], config)
    if not bool(torch.isfinite(latent).all()):
        raise ValueError("latent holds NaN or infinite values")
