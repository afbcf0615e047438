"""The spec of distances between two sets of videos: `kind: distances`."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from rayramid.pipelines.part import Part
from rayramid.pipelines.spec import Location, Source, Workers
from rayramid.platform.training.spec.fields import PixelSize


def _hook(name: str) -> str:
    if re.fullmatch(r"[\w.]+:\w+", name) is None:
        raise ValueError(f"{name!r}: write module:function")
    return name


class VideoSet(Part):
    """One side of a comparison: exactly one of source and dataset."""

    source: Source | None = Field(default=None, description="videos as data specs name them: folder, sprites, …")
    dataset: Location | None = Field(
        default=None, description="root of a data spec: its clips, one after the other in the order of their ids"
    )
    most: int = Field(default=2048, ge=2, description="the first videos of the set, at most")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.source is None) == (self.dataset is None):
            raise ValueError("a set of videos is exactly one of source and dataset")
        return self


class Features(Part):
    """What videos are compared by: each network that is named gives distances of its own."""

    random3d: bool = Field(
        default=True, description="a 3D network of fixed random weights; for comparisons within one's own runs only"
    )
    i3d: Location | None = Field(default=None, description="an `i3d_torchscript.pt`; its Fréchet distance is FVD")
    open_clip: Location | None = Field(default=None, description="folder of an open_clip model, whose items are frames")
    function: Annotated[str, AfterValidator(_hook)] | None = Field(
        default=None, description="your own, as `module:function`: videos [N, T, H, W, 3] of uint8 to features [M, D]"
    )

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if not (self.random3d or self.i3d or self.open_clip or self.function):
            raise ValueError("name at least one of random3d, i3d, open_clip, function")
        return self


class DistancesSpec(Part):
    """How far two sets of videos are from each other: Fréchet and kernel distances between their features."""

    kind: Literal["distances"] = "distances"
    output: Location = Field(description="where the results and features go; the same again goes on")
    made: VideoSet = Field(description="a model's videos")
    reference: VideoSet = Field(description="what they are to be like")
    features: Features = Features()
    frames: int = Field(default=16, ge=1, description="of each video, from its start; a shorter one is left out")
    fps: float | None = Field(default=None, gt=0, description="at which both are looked at; default: each file's own")
    size: PixelSize = Field(default="128x128", description="to which both are scaled and cropped")
    batch: int = Field(default=8, ge=1, description="videos that a worker does together")
    workers: Workers = Workers(count=2, cpus=1.0)

    @model_validator(mode="after")
    def _enough_for_i3d(self) -> Self:
        if self.features.i3d is not None and self.frames < 10:
            raise ValueError(f"frames is {self.frames}; I3D needs 10 at least, and FVD is mostly told of 16")
        return self
