"""The data spec's part on captions: who writes them, from what they are shown, and how they are asked."""

import re
from typing import Self

from pydantic import Field, model_validator

from rayramid.pipelines.identity import digest
from rayramid.pipelines.part import Part


class VisionModel(Part):
    """A vision-language model that `transformers` can load for pictures and text."""

    folder: str = Field(description="a folder or URL of a model, or with `hub: true` its id there")
    hub: bool = Field(default=False, description="allow asking the Hugging Face hub for what is not on this machine")
    tokens: int = Field(default=256, ge=1, description="of an answer at most")


class Endpoint(Part):
    """An OpenAI-compatible server of chat completions that sees pictures, as vLLM's."""

    url: str = Field(description="with its version, as http://host:8000/v1")
    model: str = Field(description="its name there")
    key_variable: str | None = Field(default=None, description="the environment variable that holds the key")
    tokens: int = Field(default=256, ge=1, description="of an answer at most")
    concurrency: int = Field(default=8, ge=1, description="requests at once, of each worker")
    retries: int = Field(default=5, ge=0, description="of a request that finds the server busy or away")
    pause_s: float = Field(default=1.0, gt=0, description="before the first of them; each next pause is twice as long")
    timeout_s: float = Field(default=120.0, gt=0, description="of one request")


class Caption(Part):
    """Where captions come from: a model or an endpoint that sees the clip; else the source's own; else a template."""

    model: VisionModel | None = None
    endpoint: Endpoint | None = None
    prompt: str = Field(
        default="Describe what is to be seen in this video in detail: subjects, motion, place, light, camera.",
        description="what is asked about the frames",
    )
    short_prompt: str | None = Field(
        default=None, description="asks for a second caption in few words; training draws one of the two"
    )
    frames: int = Field(default=8, ge=1, description="of each clip, shown to the model")
    side: int = Field(default=448, ge=32, description="their longer side in pixels")
    batch: int = Field(default=8, ge=1, description="clips at once")
    template: str | None = Field(
        default=None, description="e.g. 'a video of {name}'; fields: name, width, height, duration_s"
    )

    @model_validator(mode="after")
    def _one_writer(self) -> Self:
        if self.model is not None and self.endpoint is not None:
            raise ValueError("captions are written by a model or by an endpoint, not by both")
        if self.short_prompt is not None and self.model is None and self.endpoint is None:
            raise ValueError("short_prompt needs a model or an endpoint to answer it")
        return self

    @property
    def identity(self) -> str | None:
        """A hash of what decides a written caption: model, prompt, what is shown; None if none is written."""
        writer = self.model or self.endpoint
        if writer is None:
            return None
        name = writer.folder if isinstance(writer, VisionModel) else writer.model
        return digest("captioner", name, writer.tokens, self.prompt, self.short_prompt, self.frames, self.side)

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        unknown = set(re.findall(r"{(\w*)", self.template or "")) - {"name", "width", "height", "duration_s"}
        if unknown:
            raise ValueError(f"template has unknown fields {sorted(unknown)}; known: name, width, height, duration_s")
        return self
