"""The model card `rayramid.json`: what a checkpoint folder says about itself.

Imports no torch, so that gateways can read it.
"""

from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass

from rayramid.models import storage
from rayramid.models.errors import UserError

CARD = "rayramid.json"

# The VAE makes one latent cell of 8x8 pixels, and one latent of 8 frames after the first.
VAE_STRIDE = 8


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ModelCard:
    """Everything that sampling needs beside weights, and where the weights come from.

    Args:
        preset: name of the model configuration, `custom` when none.
        dit: the fields of `DiTConfig`.
        pyramid: the fields of `Pyramid`.
        fps: frames per second of what the model makes.
        width: default width in pixels.
        height: default height in pixels.
        frames: default length, 1 + 8n.
        steps: denoising steps per stage, coarsest first: of the first unit, and of every later one.
        guidance: guidance scale of the first unit.
        video_guidance: guidance scale of later units.
        prompt_suffix: appended to every prompt.
        negative_prompt: the prompt that guidance leads away from.
        latent_statistics: mean and standard deviation of the latents trained on.
        vae_fingerprint: identity of the VAE that made those latents.
        text_fingerprint: identity of the text encoder.
        git_revision: code that trained it, empty outside a checkout.
        spec: the resolved training spec.
        dataset_version: versions of the datasets trained on, by root.
        step: optimiser steps taken.
        files: bytes of every weight file by its path in the folder; filled when the folder is written.
    """

    format_version: Literal[1] = 1
    preset: str
    dit: dict[str, Any]
    pyramid: dict[str, Any]
    fps: float = Field(gt=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    frames: int = Field(gt=0)
    steps: tuple[tuple[int, ...], tuple[int, ...]]
    guidance: float = 7.0
    video_guidance: float = 5.0
    prompt_suffix: str = ""
    negative_prompt: str = ""
    latent_statistics: dict[str, Any] = Field(default_factory=dict)
    vae_fingerprint: str = ""
    text_fingerprint: str = ""
    git_revision: str = ""
    spec: dict[str, Any] = Field(default_factory=dict)
    dataset_version: dict[str, int] = Field(default_factory=dict)
    step: int = 0
    files: dict[str, int] = Field(default_factory=dict)

    @field_validator("frames")
    @classmethod
    def _whole_latents(cls, frames: int) -> int:
        if frames % VAE_STRIDE != 1:
            raise ValueError(f"{frames} frames; a video has 1 + 8n of them")
        return frames

    @model_validator(mode="after")
    def _steps_of_every_stage(self) -> "ModelCard":
        if any(len(unit) != self.levels or min(unit) < 1 for unit in self.steps):
            raise ValueError(f"steps are {self.steps}; each of the {self.levels} stages takes at least 1")
        return self

    @property
    def levels(self) -> int:
        """Number of stages of the spatial pyramid."""
        return int(self.pyramid["levels"])

    @property
    def frames_per_unit(self) -> int | None:
        """Latents of every unit but the first, which has one; None when the whole video is one unit."""
        return self.dit["frames_per_unit"]

    @property
    def size_multiple(self) -> int:
        """Pixels that both sides must be a multiple of: VAE stride x patch x coarsest level."""
        return VAE_STRIDE * int(self.dit["patch"]) * 2 ** (self.levels - 1)

    def to_json(self) -> bytes:
        """The bytes of `rayramid.json`."""
        return _ADAPTER.dump_json(self, indent=2) + b"\n"


_ADAPTER = TypeAdapter(ModelCard)


def load_card(url: str) -> ModelCard:
    """Read the card of the checkpoint folder `url`.

    Raises:
        UserError: no card there, or one with missing, surplus or wrong keys; names the file and the first such key.
    """
    location = storage.join(url, CARD)
    if not storage.exists(location):
        raise UserError(
            f"{url}: not a rayramid model, it has no {CARD}; import published weights with `rayramid weights import`"
        )
    try:
        return _ADAPTER.validate_json(storage.read_bytes(location))
    except ValidationError as invalid:
        error = invalid.errors()[0]
        key = PurePosixPath(*(str(part) for part in error["loc"])) if error["loc"] else ""
        raise UserError(f"{location}: {key}: {error['msg']}") from invalid
