"""A brief: what one video is to be, with everything that was left out filled in from the model card. Imports no torch.

The model makes sizes of a certain multiple and lengths of whole units; a brief asks for any even size and any length,
is made at the next larger ones, and cropped and trimmed.
"""

import math
import re
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayramid.models.card import VAE_STRIDE, ModelCard
from rayramid.models.errors import UserError

Frames = np.ndarray[Any, np.dtype[np.uint8]]
SMALLEST_SIDE = 16
Steps = tuple[tuple[int, ...], tuple[int, ...]]


class BriefError(UserError):
    """A part of a brief that can't be made; `param` names it."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, kw_only=True)
class Brief:
    """One video to make. Repeating a brief repeats the video.

    Args:
        prompt: as the user wrote it.
        prompt_suffix: what the model's prompts end with.
        negative_prompt: what guidance leads away from.
        width: pixels that were asked for, as are `height` and `frames`.
        grid_width: pixels that are made, as are those of `grid_height`.
        latents: whole units that cover `frames`; the first latent is one frame, every other one 8.
        steps: denoising steps per stage, coarse to fine: of the first unit, and of later ones.
        guidance: guidance scale of the first unit.
        video_guidance: guidance scale of later units.
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
    seed: int
    steps: Steps
    guidance: float
    video_guidance: float

    @property
    def text(self) -> str:
        """What the text encoder reads."""
        return self.prompt + self.prompt_suffix

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

    Raises:
        BriefError: an odd or tiny size, no length, or no steps.
    """
    width, height = size or (card.width, card.height)
    if width % 2 or height % 2 or min(width, height) < SMALLEST_SIDE:
        raise BriefError(
            "size", f"The size {width}x{height} can't be made: both sides must be even and at least {SMALLEST_SIDE}."
        )
    if seconds is not None and not 0 < seconds < math.inf:
        raise BriefError("seconds", f"A video can't be {seconds:g} seconds long.")
    if steps is not None and steps < 1:
        raise BriefError("steps", f"A stage can't take {steps} steps: at least 1 is needed.")
    frames = card.frames if seconds is None else max(1, round(seconds * card.fps))
    per_unit = card.frames_per_unit or 1
    later_units = math.ceil((frames - 1) / (VAE_STRIDE * per_unit))
    return Brief(
        prompt=prompt,
        prompt_suffix=card.prompt_suffix,
        negative_prompt=card.negative_prompt if negative_prompt is None else negative_prompt,
        width=width,
        height=height,
        frames=frames,
        fps=card.fps,
        grid_width=_next_multiple(width, card.size_multiple),
        grid_height=_next_multiple(height, card.size_multiple),
        latents=1 + later_units * per_unit,
        seed=secrets.randbits(32) if seed is None else seed,
        steps=card.steps if steps is None else ((steps,) * card.levels, (steps,) * card.levels),
        guidance=card.guidance if guidance is None else guidance,
        video_guidance=card.video_guidance if video_guidance is None else video_guidance,
    )


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `WIDTHxHEIGHT`; BriefError if it isn't one."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise BriefError("size", f"{text!r} is not a size; write WIDTHxHEIGHT, such as 1280x768.")
    return int(match[1]), int(match[2])


def crop(frames_THWC: Frames, height: int, width: int) -> Frames:
    """The middle `height` × `width` pixels of frames that are at least as large."""
    top, left = (frames_THWC.shape[1] - height) // 2, (frames_THWC.shape[2] - width) // 2
    return frames_THWC[:, top : top + height, left : left + width]


def _next_multiple(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
