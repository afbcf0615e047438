"""The spatial pyramid: time windows, endpoints of each stage, and the jump between stages (paper, section 3.2).

Level `k` has 1/2^k of the full resolution, level 0 is full; stage `k` is the time window that runs at level `k`.
Sampling goes from level `levels - 1` to 0. Global time is the signal's share: 0 is noise, 1 is data. Inside a stage the
local `t` runs from 0 (start, noisy) to 1 (end). Every function takes its noise as an argument; callers draw it.

Dimension legend: H, W = height and width of a latent; leading dimensions (`...`) are anything.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# The DiT is told a timestep on 0..TIMESTEPS; the official tables also have this many entries.
TIMESTEPS = 1000


def down(x: Tensor, levels: int = 1) -> Tensor:
    """[..., H, W] -> [..., H/2^levels, W/2^levels] by repeated 2x2 means; ValueError when a side does not divide."""
    for _ in range(levels):
        height, width = x.shape[-2:]
        if height % 2 or width % 2:
            raise ValueError(f"a latent of {height}x{width} (HxW) has no 2x2 mean: both sides must be even")
        pooled = F.avg_pool2d(x.reshape(-1, 1, height, width), 2)
        x = pooled.reshape(*x.shape[:-2], height // 2, width // 2)
    return x


def up(x: Tensor) -> Tensor:
    """[..., H, W] -> [..., 2H, 2W], nearest neighbour."""
    return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


def down_noise(noise: Tensor, levels: int = 1) -> Tensor:
    """White noise of a coarser level from white noise [..., H, W]: 2x the 2x2 mean keeps unit variance."""
    return down(noise, levels) * 2.0**levels


def block_noise(z: Tensor, gamma: float) -> Tensor:
    """Noise with unit variance and covariance -gamma inside every 2x2 block, from ordinary noise `z` [..., H, W].

    The closed form of Eq. 14 for any gamma: its covariance is singular at 1/3, where a Cholesky factor does not exist.
    Raises ValueError for a gamma outside (0, 1/3] and for odd sides.
    """
    _check_gamma(gamma)
    mean = up(down(z))
    return math.sqrt(1 + gamma) * (z - mean) + math.sqrt(max(0.0, 1 - 3 * gamma)) * mean


def _size(x: Tensor) -> str:
    return f"{x.shape[-2]}x{x.shape[-1]}"


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma <= 1 / 3 + 1e-6:
        raise ValueError(f"gamma is {gamma}; it must be in (0, 1/3]")


@dataclass(frozen=True)
class Pyramid:
    """Windows and schedules of a flow over `levels` resolutions.

    Args:
        levels: number of stages; 1 is ordinary flow matching at full resolution.
        gamma: magnitude of the block noise's covariance, in (0, 1/3].
        stage_range: `levels + 1` rising edges from 0 to 1 of the uncorrected windows, noisiest stage first;
            None means equal shares.
        shift: moves time towards noise, `sigma -> shift * sigma / (1 + (shift - 1) * sigma)`; 1 leaves it alone.
        renoise: false leaves out the corrective noise of the jumps, as the paper's ablation does; training is the same.
        schedule: `uniform` takes equal steps and wastes none; `official` is the published one: window edges cut to
            1/1000 and a last step of that length.

    Raises:
        ValueError: a value outside what is said above.
    """

    levels: int = 3
    gamma: float = 1 / 3
    stage_range: tuple[float, ...] | None = None
    shift: float = 1.0
    schedule: Literal["uniform", "official"] = "uniform"
    renoise: bool = True

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"levels is {self.levels}; a pyramid has at least 1")
        _check_gamma(self.gamma)
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift is {self.shift}; it must be positive")
        if self.schedule not in ("uniform", "official"):
            raise ValueError(f"schedule is {self.schedule!r}; it must be 'uniform' or 'official'")
        if self.stage_range is not None:
            object.__setattr__(self, "stage_range", tuple(self.stage_range))
        edges = self.edges
        rising = all(a < b for a, b in itertools.pairwise(edges))
        if len(edges) != self.levels + 1 or edges[0] != 0 or edges[-1] != 1 or not rising:
            raise ValueError(f"stage_range is {edges}; it must rise from 0 to 1 in {self.levels + 1} edges")
        if any(start >= end for start, end in self.uncorrected):
            raise ValueError(f"stage_range is {edges}; the official schedule needs 1/{TIMESTEPS} between its edges")

    @property
    def edges(self) -> tuple[float, ...]:
        """The edges of the uncorrected windows before the shift, noisiest stage first."""
        if self.stage_range is not None:
            return self.stage_range
        return tuple(i / self.levels for i in range(self.levels + 1))

    @cached_property
    def uncorrected(self) -> tuple[tuple[float, float], ...]:
        """By level, the windows before the correction of their starts; they tile [0, 1]."""
        signal = [0.0, *(1 - self._sigma(edge) for edge in self.edges[1:])]
        return tuple((signal[self.levels - 1 - k], signal[self.levels - k]) for k in range(self.levels))

    @cached_property
    def windows(self) -> tuple[tuple[float, float], ...]:
        """By level, `(s_k, e_k)`: the signal's share where stage k starts and ends; 1 minus it is the noise's share.

        A start is moved to noisier time so that the jump can reach it (Eq. 15 at gamma = 1/3: e = 2s / (1 + s)).
        """
        q = math.sqrt(1 + 1 / self.gamma)
        return tuple((e / (q * (1 - e) + e), end) for e, end in self.uncorrected)

    @cached_property
    def timestep_windows(self) -> tuple[tuple[float, float], ...]:
        """By level, the timestep told at the start and at the end: each stage's share is that of its flow's length."""
        lengths = [(1 - start) - (1 - end) for start, end in reversed(self.windows)]
        total = sum(lengths)
        # The official table has no entry for 0: its last one, 1, stands in.
        shares = [*(sum(lengths[:i]) / total for i in range(self.levels)), 1.0]
        edges = [TIMESTEPS * self._sigma(share, last=TIMESTEPS - 1) for share in shares]
        return tuple((edges[self.levels - 1 - k], edges[self.levels - k]) for k in range(self.levels))

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless a latent of `height` x `width` can be halved down to the coarsest level."""
        step = 2 ** (self.levels - 1)
        if height < step or width < step or height % step or width % step:
            raise ValueError(
                f"a latent of {height}x{width} (HxW) has no {self.levels} levels: its sides must be multiples of {step}"
            )

    def endpoints(self, x: Tensor, noise: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Where stage `level` starts and ends, sharing one noise (Eq. 9, 10).

        Args:
            x: clean latent at full resolution, [..., H, W].
            noise: ordinary noise of the same shape; coarser levels use its unit-variance means.
            level: the stage.

        Returns:
            start and end, both [..., H/2^level, W/2^level]; the DiT predicts `end - start` (Eq. 11).
        """
        self._check_level(level, self.levels)
        if noise.shape[-2:] != x.shape[-2:]:
            raise ValueError(f"noise of {_size(noise)} for a latent of {_size(x)} (HxW): both must be equal")
        start_signal, end_signal = self.windows[level]
        noise = down_noise(noise, level)
        clean = down(x, level)
        end = end_signal * clean + (1 - end_signal) * noise
        if level == self.levels - 1:
            return noise, end
        return start_signal * up(down(clean)) + (1 - start_signal) * noise, end

    def timestep(self, level: int, t: Tensor) -> Tensor:
        """What the DiT is told at local times `t` of stage `level`: 1000 is noise, 0 is clean. Always fp32."""
        start, end = self.timestep_windows[level]
        return (start + (end - start) * t.double()).float()

    def local_time(self, u: Tensor) -> Tensor:
        """The local time that a uniform draw `u` in [0, 1) trains; the official tables, fp64, have steps of 1/1000."""
        if self.schedule == "official":
            return (u * TIMESTEPS).long().clamp(0, TIMESTEPS - 1).double() / TIMESTEPS
        return u

    def jump(self, x: Tensor, noise: Tensor, level: int) -> Tensor:
        """Enter stage `level` from the end of the coarser one (Eq. 13-15); mean and covariance are those of its start.

        Args:
            x: the latent where stage `level + 1` ended, [..., H, W].
            noise: ordinary noise [..., 2H, 2W].
            level: the stage entered, below `levels - 1`.
        """
        self._check_level(level, self.levels - 1)
        if noise.shape[-2:] != (2 * x.shape[-2], 2 * x.shape[-1]):
            raise ValueError(f"noise of {_size(noise)} to enter from {_size(x)} (HxW): its sides must be twice as long")
        start = self.windows[level][0]
        end_before = self.windows[level + 1][1]
        signal = start / end_before * up(x)
        if not self.renoise:
            return signal
        return signal + (1 - start) / math.sqrt(1 + self.gamma) * block_noise(noise, self.gamma)

    def steps(self, count: int) -> tuple[float, ...]:
        """The `count + 1` local times between which a stage's Euler steps run, from 0 to 1."""
        if count < 1:
            raise ValueError(f"{count} steps; a stage takes at least 1")
        if self.schedule == "official" and count > 1:
            last = 1 - 1 / TIMESTEPS
            return (*(last * i / (count - 1) for i in range(count)), 1.0)
        return tuple(i / count for i in range(count + 1))

    def _check_level(self, level: int, below: int) -> None:
        if not 0 <= level < below:
            raise ValueError(f"level is {level}; it must be at least 0 and below {below}, in {self.levels} levels")

    def _sigma(self, signal: float, last: int = TIMESTEPS) -> float:
        """The noise's share where the unshifted signal's share is `signal`.

        The official schedule reads it from an fp32 table of 1000 entries (index 1000, if `last` lets it, is 0).
        """
        shift = self.shift
        if self.schedule == "official":
            entry = torch.tensor(float(TIMESTEPS - min(int(signal * TIMESTEPS), last))) / TIMESTEPS
            return float(shift * entry / (1 + (shift - 1) * entry))
        sigma = 1 - signal
        return shift * sigma / (shift * sigma + signal)
