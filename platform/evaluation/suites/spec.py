"""The spec of a prompt suite's videos: `kind: suite`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rayramid.pipelines.part import Part
from rayramid.pipelines.spec import Location, Workers
from rayramid.platform.training.spec.fields import PixelSize


class SuiteSpec(Part):
    """The videos of a benchmark's prompts, in the benchmark's layout, and how they drift from unit to unit."""

    kind: Literal["suite"] = "suite"
    model: Location = Field(description="a model folder")
    output: Location = Field(description="where videos, measures and the manifest go; the same again goes on")
    layout: Literal["vbench", "evalcrafter"] = Field(description="whose names and counts")
    prompts: Location = Field(
        description="your copy of the prompts: VBench_full_info.json or the folder prompts_per_dimension of VBench, "
        "prompt700.txt of EvalCrafter, or any file of a prompt a line"
    )
    dimensions: list[str] | None = Field(
        default=None, min_length=1, description="of VBench, whose prompts alone are wanted; default: all"
    )
    first: int | None = Field(default=None, ge=1, description="so many of the prompts; default: all")
    samples: int | None = Field(
        default=None,
        ge=1,
        description="videos of each prompt in VBench's layout; default: 5, 25 for temporal_flickering",
    )
    seed: int = Field(default=0, ge=0, description="every video's seed follows from it and from its place in the suite")
    size: PixelSize | None = Field(default=None, description="default: the model's")
    seconds: float | None = Field(default=None, gt=0, description="length; default: the model's")
    steps: int | None = Field(default=None, ge=1, description="of every stage and unit; default: the model's")
    guidance: float | None = Field(default=None, description="scale of the first unit; default: the model's")
    video_guidance: float | None = Field(default=None, description="scale of later units; default: the model's")
    negative_prompt: str | None = Field(default=None, description="what guidance leads away from; default: the model's")
    batch: int = Field(default=4, ge=1, description="videos that are made together")
    workers: Workers = Workers(count=2, cpus=1.0)

    @model_validator(mode="after")
    def _vbenchs_alone(self) -> Self:
        if self.layout == "evalcrafter" and (self.samples is not None or self.dimensions is not None):
            raise ValueError("samples and dimensions are VBench's; EvalCrafter has one video of each prompt")
        return self
