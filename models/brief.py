"""A brief: what one video is to be, with everything that was left out filled in from the model card. Imports no torch.

The model makes sizes of a certain multiple and lengths of whole units; a brief asks for any even size and any length,
is made at the next larger ones, and cropped and trimmed.
"""

import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rayramid.models.card import VAE_STRIDE, ModelCard
from rayramid.models.errors import UserError
from rayramid.models.history import unit_count, unit_span

Frames = np.ndarray[Any, np.dtype[np.uint8]]
SMALLEST_SIDE = 16
Steps = tuple[tuple[int, ...], tuple[int, ...]]
# Units, each with the prompt that holds from it on.
Prompts = tuple[tuple[int, str], ...]


class BriefError(UserError):
    """A part of a brief that can't be made; `param` names it."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, kw_only=True)
class Brief:
    """One video to make. Repeating a brief repeats the video.

    Args:
        prompt: what the video shows from its beginning on.
        prompt_suffix: what the model's prompts end with.
        negative_prompt: what guidance leads away from.
        width: pixels that were asked for, as are `height` and `frames`.
        grid_width: pixels that are made, as are those of `grid_height`.
        latents: whole units that cover `frames`; the first latent is one frame, every other one 8.
        frames_per_unit: latents of every unit but the first, as in the model card.
        steps: denoising steps per stage, coarse to fine: of the first unit, and of later ones.
        guidance: guidance scale of the first unit.
        video_guidance: guidance scale of later units.
        later_prompts: prompts that take over at later units.
    """

    prompt: str
    prompt_suffix: str
    negative_prompt: str
    width: int
    height: int
    frames: int
    fps: float
    grid_width: int
    grid_height: int
    latents: int
    frames_per_unit: int | None
    seed: int
    steps: Steps
    guidance: float
    video_guidance: float
    later_prompts: Prompts = ()

    @property
    def prompts(self) -> dict[int, str]:
        """All prompts by the unit at which each begins."""
        return {0: self.prompt, **dict(self.later_prompts)}

    def text_of(self, prompt: str) -> str:
        """What the text encoder reads of a prompt."""
        return prompt + self.prompt_suffix

    @property
    def units(self) -> int:
        """Units of the whole video."""
        return unit_count(self.latents, self.frames_per_unit)

    def second_of(self, unit: int) -> float:
        """When the first frame of a unit is shown; the unit behind the last one begins when the video ends."""
        if unit == 0:
            return 0.0
        _, before = unit_span(unit - 1, self.frames_per_unit, self.latents)
        return (1 + VAE_STRIDE * (before - 1)) / self.fps

    @property
    def grid_frames(self) -> int:
        """Frames that are made, of which the first `frames` are kept."""
        return 1 + VAE_STRIDE * (self.latents - 1)

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of a full-resolution latent."""
        return self.grid_height // VAE_STRIDE, self.grid_width // VAE_STRIDE


def write_brief(
    card: ModelCard,
    prompt: str,
    *,
    size: tuple[int, int] | None = None,
    seconds: float | None = None,
    seed: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    video_guidance: float | None = None,
    negative_prompt: str | None = None,
    schedule: Sequence[tuple[float, str]] = (),
) -> Brief:
    """Fill in a brief.

    Args:
        card: of the model that is to make the video.
        prompt: what the video shows.
        size: width and height in pixels.
        seconds: length; the nearest whole number of frames is made, at least one.
        seed: of all noise; drawn when left out.
        steps: denoising steps of every stage and unit.
        guidance: scale of the first unit; 0 and 1 mean none.
        video_guidance: scale of later units.
        negative_prompt: what guidance leads away from.
        schedule: further prompts and the second from which each holds: the first unit that begins then or later.

    Raises:
        BriefError: an odd or tiny size, no length, no steps, or a schedule that does not fit the length.
    """
    width, height = check_sides(*(size or (card.width, card.height)))
    if seconds is not None and not 0 < seconds < math.inf:
        raise BriefError("seconds", f"A video can't be {seconds:g} seconds long.")
    if steps is not None and steps < 1:
        raise BriefError("steps", f"A stage can't take {steps} steps: at least 1 is needed.")
    frames = card.frames if seconds is None else frames_of(seconds, card.fps)
    brief = Brief(
        prompt=prompt,
        prompt_suffix=card.prompt_suffix,
        negative_prompt=card.negative_prompt if negative_prompt is None else negative_prompt,
        width=width,
        height=height,
        frames=frames,
        fps=card.fps,
        grid_width=_next_multiple(width, card.size_multiple),
        grid_height=_next_multiple(height, card.size_multiple),
        latents=_latents(frames, card.frames_per_unit),
        frames_per_unit=card.frames_per_unit,
        seed=secrets.randbits(32) if seed is None else seed,
        steps=card.steps if steps is None else ((steps,) * card.levels, (steps,) * card.levels),
        guidance=card.guidance if guidance is None else guidance,
        video_guidance=card.video_guidance if video_guidance is None else video_guidance,
    )
    return replace(brief, later_prompts=_scheduled(brief, schedule, 0)) if schedule else brief


def extended(brief: Brief, seconds: float, prompt: str, schedule: Sequence[tuple[float, str]] = ()) -> Brief:
    """The same video made longer: what N frames and then M more need equals what N + M need.

    Args:
        brief: of a video that is finished.
        seconds: to be added.
        prompt: what the new units show.
        schedule: as in `write_brief`; seconds count from the beginning of the whole video.

    Raises:
        BriefError: a model that makes the whole video at once, or a schedule that does not fit.
    """
    if brief.frames_per_unit is None:
        raise BriefError("video", "This model makes a whole video at once; it can't extend one.")
    frames = brief.frames + frames_of(seconds, brief.fps)
    longer = replace(brief, frames=frames, latents=_latents(frames, brief.frames_per_unit))
    _, last = max(brief.prompts.items())
    begins = ((brief.units, prompt),) if prompt != last and longer.units > brief.units else ()
    return replace(longer, later_prompts=brief.later_prompts + begins + _scheduled(longer, schedule, brief.units))


def frames_of(seconds: float, fps: float) -> int:
    """The nearest whole number of frames, at least one."""
    return max(1, round(seconds * fps))


def _latents(frames: int, frames_per_unit: int | None) -> int:
    per_unit = frames_per_unit or 1
    return 1 + math.ceil((frames - 1) / (VAE_STRIDE * per_unit)) * per_unit


def _scheduled(brief: Brief, schedule: Sequence[tuple[float, str]], first: int) -> Prompts:
    """Prompts by unit, each behind unit `first` and the one before it."""
    prompts: list[tuple[int, str]] = []
    for second, prompt in schedule:
        unit = _unit_from(brief, second)
        if unit >= brief.units:
            raise BriefError("prompt_schedule", f"No unit of the video begins at second {second:g} or later.")
        if unit <= (prompts[-1][0] if prompts else first):
            raise BriefError(
                "prompt_schedule", f"At second {second:g} another prompt begins; prompts follow each other by units."
            )
        prompts.append((unit, prompt))
    return tuple(prompts)


def _unit_from(brief: Brief, second: float) -> int:
    """The first unit that begins at `second` or later."""
    frame = round(second * brief.fps)
    if frame < 1:
        return 0
    if brief.frames_per_unit is None:
        return 1
    return 1 + math.ceil((frame - 1) / (VAE_STRIDE * brief.frames_per_unit))


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `WIDTHxHEIGHT`; BriefError if it isn't one."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise BriefError("size", f"{text!r} is not a size; write WIDTHxHEIGHT, such as 1280x768.")
    return int(match[1]), int(match[2])


def check_sides(width: int, height: int) -> tuple[int, int]:
    """The sides in pixels, of a video that some model could make; BriefError otherwise."""
    if width % 2 or height % 2 or min(width, height) < SMALLEST_SIDE:
        raise BriefError(
            "size", f"The size {width}x{height} can't be made: both sides must be even and at least {SMALLEST_SIDE}."
        )
    return width, height


def crop(frames_THWC: Frames, height: int, width: int) -> Frames:
    """The middle `height` × `width` pixels of frames that are at least as large."""
    top, left = (frames_THWC.shape[1] - height) // 2, (frames_THWC.shape[2] - width) // 2
    return frames_THWC[:, top : top + height, left : left + width]


def _next_multiple(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
