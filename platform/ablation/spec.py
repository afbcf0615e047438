"""The spec of an ablation: `kind: ablation`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rayramid.platform.training.spec.fields import Count, Location, Positive, Share, Strict

Settings = dict[str, Any]
Length = Annotated[int, Field(ge=1)]


class Claim(Strict):
    """What the paper says.

    Attributes:
        source: where: a figure or a section.
        words: in one or two sentences.
    """

    source: str
    words: str


class Measure(Strict):
    """What is measured of the averaged weights at every point.

    Attributes:
        loss: whether the held-out velocity losses of the arms compare: they predict the same targets.
        prompts: videos made from held-out captions; none are made at 0.
        lengths: first frames that are judged; the longest is made. 1 makes images.
        reference: drawn scenes that the Fréchet distance compares with.
        batch: videos that are made together.
        seed: of scenes, captions and noise.
    """

    loss: bool = False
    prompts: Count = 32
    lengths: Annotated[tuple[Length, ...], Field(min_length=1)] = (17, 25)
    reference: Positive = 256
    batch: Positive = 16
    seed: Count = 0


class AblationSpec(Strict):
    """Arms trained on the same operations, measured on their way, and drawn beside what the paper claims.

    Attributes:
        kind: what the spec is of.
        title: of the figure.
        question: what is asked, in a sentence.
        claim: what the paper says of it; None where the question is ours.
        output: the folder or URL of the measurements and the result.
        runs: the folder or URL of the training runs; ablations with equal arms share them, one after the other.
        base: the training spec that all arms start from; relative to the file of this spec.
        settings: keys of the training spec that are other for every arm, as `--set` takes them.
        arms: the settings of each, by its name; the first is the one that others are compared with. Arms that differ in
            `sampling` and `model.renoise` alone are trained once.
        seeds: each arm is trained once with each.
        tflop: training operations of every run, in 10^12: those of the packs that it reads, counted.
        points: shares of `tflop` at which is measured; the last is 1.
        measure: what is measured there.
        hours: that it takes on 2 cores, about; stated, not enforced.
    """

    kind: Literal["ablation"]
    title: str
    question: str
    claim: Claim | None = None
    output: Location
    runs: Location
    base: str
    settings: Settings = Field(default={})
    arms: Annotated[dict[str, Settings], Field(min_length=2)]
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)] = (0, 1)
    tflop: Annotated[float, Field(gt=0)]
    points: Annotated[tuple[Share, ...], Field(min_length=1)] = (1.0,)
    measure: Measure = Measure()
    hours: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _points_rise_to_the_end(self) -> "AblationSpec":
        if list(self.points) != sorted(set(self.points)) or self.points[0] <= 0 or self.points[-1] != 1:
            raise ValueError(f"points are {list(self.points)}; they rise, from above 0 to 1")
        return self
