"""What may be asked of the model that is served: OpenAI's model object, and what a form for videos needs to know."""

import math
from typing import Literal

from pydantic import BaseModel, Field

from rayramid.models.brief import SMALLEST_SIDE
from rayramid.models.card import ModelCard
from rayramid.serve.job import Model
from rayramid.serve.spec import Limits


class OfferedModel(BaseModel):
    """A model that is served. The fields after `owned_by` are this server's own."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Not known of a model, so 0")
    owned_by: Literal["rayramid"] = "rayramid"

    version: str
    sizes: list[str] = Field(description="Sizes that suit the model, its own first; every even one can be asked for")
    size_multiple: int = Field(description="Sides that are multiples of it are made without cropping")
    min_side: int
    max_pixels: int = Field(description="Width times height")
    seconds: float = Field(description="The model's own length")
    max_seconds: float = Field(description="Of a video, and of what an extension adds")
    fps: float
    image_to_video: bool = Field(description="Whether a video can begin with a picture")
    extends: bool = Field(description="Whether a video can be made longer, and its prompt be changed while it is made")
    max_prompt_characters: int
    max_upload_bytes: int


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[OfferedModel]


def offer(model: Model, limits: Limits) -> OfferedModel:
    """What a model can do within the limits."""
    card = model.card
    stepwise = card.frames_per_unit is not None
    return OfferedModel(
        id=model.name,
        version=model.version,
        sizes=sizes(card, limits.pixels),
        size_multiple=card.size_multiple,
        min_side=SMALLEST_SIDE,
        max_pixels=limits.pixels,
        seconds=card.frames / card.fps,
        max_seconds=limits.seconds,
        fps=card.fps,
        image_to_video=stepwise,
        extends=stepwise,
        max_prompt_characters=limits.prompt_characters,
        max_upload_bytes=limits.upload_bytes,
    )


def sizes(card: ModelCard, most_pixels: int) -> list[str]:
    """The model's own size, then the same turned, and a square of about as many pixels, if they are allowed."""
    side = max(1, round(math.sqrt(card.width * card.height) / card.size_multiple)) * card.size_multiple
    found = [(card.width, card.height)]
    found += [(w, h) for w, h in ((card.height, card.width), (side, side)) if w * h <= most_pixels]
    return list(dict.fromkeys(f"{width}x{height}" for width, height in found))
