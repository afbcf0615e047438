"""All that one video needs to go on: its finished units, the unit being made, and the K/V of what it sees.

Dimension legend: C = latent channels, t, T = latents of a unit, of a video, H, W = rows and columns of a latent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rayramid.models.dit.config import DiTConfig
from rayramid.models.history import unit_count, unit_span
from rayramid.models.pyramid import Pyramid
from rayramid.models.sampling.noise import Noise
from rayramid.models.sampling.request import EncodedText, Request, check_text
from rayramid.models.sampling.row import Row
from rayramid.models.sequence import Clip


@dataclass(frozen=True)
class Unit:
    """A finished unit: `index` in the video of `session`, normalised latents [C, t, H, W]."""

    session: "Session"
    index: int
    latent_CTHW: Tensor


class Session:
    """One video on its way; made by `Sampler.start` and `Sampler.resume`, moved on by `Sampler.step`.

    Attributes:
        request: what the video is to be.
        unit: index of the unit being made.
        level: resolution level of the stage being run.
        index: Euler steps done in this stage.
        finished: clean latents [C, t, H, W] of every unit before `unit`, given ones included.
        x_CTHW: the noisy latent of the unit being made, at `level`'s resolution; None when the video is done.
    """

    def __init__(
        self,
        request: Request,
        config: DiTConfig,
        pyramid: Pyramid,
        noise: Noise,
        finished: Sequence[Tensor],
        like: Tensor,
    ) -> None:
        """Begin the unit behind `finished`, drawing `noise`; latents have the dtype and device of `like`."""
        self.request = request
        self.finished = list(finished)
        self._config = config
        self._pyramid = pyramid
        self._noise = noise
        self._like = like
        self._rows: dict[str, Row] = {}
        self.x_CTHW: Tensor | None = None
        self._begin()

    # ---- how far it is

    @property
    def unit(self) -> int:
        """Index of the unit being made."""
        return len(self.finished)

    @property
    def units(self) -> int:
        """Units of the whole video."""
        return unit_count(self.request.latents, self._config.frames_per_unit)

    @property
    def done(self) -> bool:
        """Whether every unit is finished."""
        return self.x_CTHW is None

    @property
    def latents_CTHW(self) -> Tensor:
        """All finished latents, given ones included."""
        if self.finished:
            return torch.cat(self.finished, dim=1)
        return self._like.new_empty(self._config.latent_channels, 0, self.request.height, self.request.width)

    @property
    def steps_total(self) -> int:
        """Denoising steps of all units that are not given."""
        return self._steps_before(self.units)

    @property
    def steps_done(self) -> int:
        """Denoising steps done so far."""
        stages = self.request.steps_of(self.unit)[: self._pyramid.levels - 1 - self.level]
        return self._steps_before(self.unit) + (0 if self.done else sum(stages) + self.index)

    @property
    def next_tokens(self) -> int:
        """Tokens that the next step adds to a pack."""
        if self.done:
            return 0
        grid = (self._frames, self.request.height, self.request.width)
        return sum(row.tokens(texts, grid, self.unit, self.level) for texts, row in self._views())

    @property
    def cache_bytes(self) -> int:
        """Bytes of K/V that this session holds."""
        return sum(row.cache.bytes for row in self._rows.values())

    # ---- changes of the request

    def extend(self, latents: int) -> None:
        """Make the video `latents` long in all; N latents and then M more equal N + M."""
        if self._config.frames_per_unit is None:
            raise ValueError("a full-sequence model makes the whole video at once; it cannot be extended")
        if latents < self.request.latents:
            raise ValueError(f"a video of {self.request.latents} latents cannot be cut to {latents}")
        unit_count(latents, self._config.frames_per_unit)
        was_done = self.done
        self.request = replace(self.request, latents=latents)
        if was_done:
            self._begin()

    def change_prompt(self, unit: int, text: EncodedText) -> None:
        """Let units from `unit` on see `text`; ValueError for a unit that has begun."""
        begun = self.level < self._pyramid.levels - 1 or self.index > 0
        first = self.unit + 1 if begun and not self.done else self.unit
        if unit < first:
            raise ValueError(f"unit {unit} has begun; the prompt can change from unit {first} on")
        check_text(text, self._config.text_dim, self._config.pooled_dim)
        self.request = replace(self.request, prompts={**self.request.texts, unit: text})

    # ---- saving

    def state_dict(self) -> dict[str, Tensor]:
        """Latents and position, never K/V: with the request, all that `Sampler.resume` needs."""
        state = {"latents": self.latents_CTHW.contiguous(), "position": torch.tensor([self.level, self.index])}
        return state if self.x_CTHW is None else {**state, "x": self.x_CTHW.contiguous()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go to the place inside the unit where `state_dict` was taken; ValueError when the unit has no such place."""
        if self.x_CTHW is None or "x" not in state:
            return
        x_CTHW, (level, index) = state["x"].to(self._like), state["position"].tolist()
        self.level, self.index = min(max(level, 0), self._pyramid.levels - 1), index
        if level != self.level or not 0 <= index < len(self._times) - 1 or x_CTHW.shape != self._shape:
            raise ValueError(
                f"the saved session is at level {level}, step {index} with a latent of shape {tuple(x_CTHW.shape)}; "
                f"the request has no such place in unit {self.unit}"
            )
        self.x_CTHW = x_CTHW

    # ---- one denoising step

    def clips(self) -> list[tuple[Clip, Row]]:
        """What this step adds to a pack: the prompt's row and, if the unit is guided, the negative text's."""
        assert self.x_CTHW is not None
        time = torch.tensor(self._times[self.index], dtype=torch.float64)
        timestep = self._pyramid.timestep(self.level, time).item()
        return [
            (row.clip(texts, self.finished, self.x_CTHW, self.level, timestep), row) for texts, row in self._views()
        ]

    def advance(self, velocities: Sequence[Tensor]) -> Unit | None:
        """One Euler step along the velocities of `clips`; enters the next stage, or returns the finished unit."""
        assert self.x_CTHW is not None
        for _, row in self._views():
            row.settle()
        velocity_CTHW, *negative = (velocity.to(self._like) for velocity in velocities)
        if negative:
            velocity_CTHW = negative[0] + self.request.scale(self.unit) * (velocity_CTHW - negative[0])
        now, then = self._times[self.index : self.index + 2]
        self.x_CTHW = self.x_CTHW + (then - now) * velocity_CTHW
        self.index += 1
        if self.index < len(self._times) - 1:
            return None
        if self.level > 0:
            self.level, self.index = self.level - 1, 0
            self.x_CTHW = self._pyramid.jump(self.x_CTHW, self._draw(), self.level)
            return None
        unit = Unit(self, self.unit, latent_CTHW=self.x_CTHW)
        self.finished.append(self.x_CTHW)
        self._begin()
        return unit

    @property
    def _times(self) -> tuple[float, ...]:
        """Local times of the current stage's steps."""
        return self._pyramid.steps(self.request.steps_of(self.unit)[self._pyramid.levels - 1 - self.level])

    @property
    def _frames(self) -> int:
        """Latents of the unit being made."""
        start, stop = unit_span(self.unit, self._config.frames_per_unit, self.request.latents)
        return stop - start

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        """Shape of the unit being made, at the current stage's level."""
        height, width = self.request.height >> self.level, self.request.width >> self.level
        return self._config.latent_channels, self._frames, height, width

    def _begin(self) -> None:
        """Start the next unit with noise, if there is one."""
        self.level, self.index = self._pyramid.levels - 1, 0
        self.x_CTHW = self._draw() if self.unit < self.units else None

    def _draw(self) -> Tensor:
        """The noise with which the current stage begins."""
        return self._noise(self.request.seed, self.unit, self.level, self._shape).to(self._like)

    def _steps_before(self, unit: int) -> int:
        given = 0 if self.request.given is None else self.request.given.shape[1]
        first = unit_count(given, self._config.frames_per_unit) if given else 0
        return sum(sum(self.request.steps_of(i)) for i in range(first, unit))

    def _views(self) -> list[tuple[Mapping[int, EncodedText], Row]]:
        texts = {"prompt": self.request.texts}
        if self.request.guided(self.unit):
            assert self.request.negative is not None
            texts["negative"] = {0: self.request.negative}
        return [(texts[name], self._rows.setdefault(name, Row(self._config))) for name in texts]
