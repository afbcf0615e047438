"""What one video is to be: its texts, size, length, steps, guidance and given latents."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rayramid.models.workload import is_guided


class EncodedText(Protocol):
    """A prompt behind the text encoder: tokens [L, D] (real ones only) and a pooled vector [P]."""

    @property
    def tokens_LD(self) -> Tensor: ...  # noqa: D102

    @property
    def pooled_P(self) -> Tensor: ...  # noqa: D102


def check_text(text: EncodedText, text_dim: int, pooled_dim: int) -> None:
    """Raise ValueError unless a text has tokens [L >= 1, text_dim] and a pooled vector [pooled_dim]."""
    tokens, pooled = tuple(text.tokens_LD.shape), tuple(text.pooled_P.shape)
    if len(tokens) != 2 or not tokens[0] or (tokens[1], *pooled) != (text_dim, pooled_dim):
        raise ValueError(
            f"a text of shapes {tokens} and {pooled}; "
            f"this model takes [L, {text_dim}] with L at least 1 and [{pooled_dim}]"
        )


@dataclass(frozen=True)
class Request:
    """One video, as the sampler takes it.

    Args:
        prompts: the text; or a mapping from the unit at which a text begins to that text, which must hold 0.
        height: rows of the latent at full resolution.
        width: its columns.
        latents: the video's length in latents, given ones included: 1 + a multiple of the model's frames per unit.
        steps: Euler steps of the first unit and of every later unit, per stage from coarse to fine.
        seed: what the noise is keyed by.
        negative: the text that guidance leads away from; needed when any unit is guided.
        guidance: scale v = v_negative + scale * (v - v_negative) of unit 0; 0 and 1 mean no guidance, at half the cost.
        video_guidance: the scale of later units.
        guidance_slope: above 0, unit u has the scale max(guidance - slope * u, floor) instead.
        guidance_floor: the least scale of that schedule.
        given: normalised latents [C, T, H, W] to go on from: an image (T = 1) or the start of the video.

    Raises:
        ValueError: a value that no model could take; `Sampler.start` refuses the rest.
    """

    prompts: EncodedText | Mapping[int, EncodedText]
    height: int
    width: int
    latents: int
    steps: tuple[tuple[int, ...], tuple[int, ...]]
    seed: int = 0
    negative: EncodedText | None = None
    guidance: float = 7.0
    video_guidance: float = 5.0
    guidance_slope: float = 0.0
    guidance_floor: float = 2.0
    given: Tensor | None = None

    def __post_init__(self) -> None:
        if self.latents < 1:
            raise ValueError(f"a video of {self.latents} latents; it has at least 1")
        if len(self.steps) != 2 or any(count < 1 for counts in self.steps for count in counts):
            raise ValueError(
                f"steps are {self.steps}; give the counts of the first unit and of later units, each at least 1"
            )
        for name in ("guidance", "video_guidance", "guidance_slope", "guidance_floor"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.negative is None and self._guided_somewhere():
            raise ValueError("guidance needs a negative text; give one (it may be the empty prompt) or scales of 0")
        if 0 not in self.texts or min(self.texts) < 0:
            raise ValueError(f"prompts begin at units {sorted(self.texts)}; the first must begin at 0")
        if self.given is not None:
            if self.given.ndim != 4 or not self.given.shape[1]:
                raise ValueError(f"given latents have shape {tuple(self.given.shape)}; they must be [C, T, H, W]")
            if not torch.isfinite(self.given).all():
                raise ValueError("given latents hold NaN or infinity; every value must be finite")
            if self.given.shape[1] > self.latents:
                raise ValueError(f"{self.given.shape[1]} latents are given for a video of {self.latents}")

    @property
    def texts(self) -> Mapping[int, EncodedText]:
        """The texts by the unit at which each begins."""
        return self.prompts if isinstance(self.prompts, Mapping) else {0: self.prompts}

    def steps_of(self, unit: int) -> tuple[int, ...]:
        """Steps of each stage of `unit`, coarse to fine."""
        return self.steps[min(unit, 1)]

    def scale(self, unit: int) -> float:
        """The guidance scale of `unit`."""
        if self.guidance_slope > 0:
            return max(self.guidance - self.guidance_slope * unit, self.guidance_floor)
        return self.video_guidance if unit else self.guidance

    def guided(self, unit: int) -> bool:
        """Whether `unit` needs the negative text's velocity."""
        return is_guided(self.scale(unit))

    def _guided_somewhere(self) -> bool:
        made = [0] * (self.given is None) + [1] * (self.latents > 1)
        return self.guidance_slope > 0 or any(map(self.guided, made))
