"""The spec of an evaluation: `kind: eval`."""

from typing import Annotated, Literal

from pydantic import Field

from rayramid.pipelines.part import Part
from rayramid.pipelines.spec import Location, Workers

Steps = Annotated[int, Field(ge=1)]
Length = Annotated[int, Field(ge=2)]


class Curve(Part):
    """Quality against denoising steps: the first prompts once more, with these steps in every stage and unit.

    The model's own steps are its last point.
    """

    steps: list[Steps] = Field(default=[2, 4, 8, 16], description="points of the curve")
    prompts: int = Field(default=64, ge=1, description="at most `prompts` of the evaluation")


class EvalSpec(Part):
    """A model judged in the sprites world, on captions that training never sees."""

    kind: Literal["eval"] = "eval"
    model: Location = Field(description="a model folder")
    output: Location = Field(description="where the results go, and pictures of the first videos")
    seed: int = Field(default=0, ge=0, description="of captions, scenes and noise")
    prompts: int = Field(default=256, ge=1, description="videos from a caption alone")
    lengths: list[Length] = Field(default=[17, 25, 49], min_length=1, description="first frames that are judged")
    curve: Curve = Curve()
    images: int = Field(
        default=64, ge=0, description="videos from a caption and its scene's first frame, at most `prompts`"
    )
    renders: int = Field(default=64, ge=0, description="drawn clips through the VAE and back, at most `prompts`")
    batch: int = Field(default=16, ge=1, description="videos that are made together")
    workers: Workers = Workers(count=2, cpus=1.0)
