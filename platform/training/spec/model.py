"""What a run trains, beginning with what, and how others are to sample from it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rayramid.models.dit.config import SharedPart
from rayramid.platform.training.spec.fields import Location, Positive, Strict


class Model(Strict):
    """What is trained: a preset with random weights, or a model to go on from. Exactly one of the two is given.

    Every other field replaces what the preset or the model says, and is left out otherwise.

    Attributes:
        preset: a named configuration; starts from random weights.
        start: path or URL of a model to go on from: a model folder, the output of a finished run, a release of Pyramid
            Flow, or SD3-medium's `transformer` folder.
        variant: which DiT of a release, such as `768p`; needed when it holds several.
        patch: latents a side that are one token; of a model to go on from, a divisor of its own.
        conditioning: `shared_context`, or `official` as in the published model.
        shared_parts: under `official`, what is as in `shared_context` all the same: text and history at timesteps of
            their own, text that sees text alone, positions on the full-resolution grid, embeddings of the roles.
        levels: resolutions of the spatial pyramid; 1 is plain flow matching at full resolution.
        frames_per_unit: latents per autoregressive unit; `all` makes a video one unit (full-sequence diffusion).
        history_units: how many units back anything sees.
        causal: false, under `official`, is bidirectional attention.
        gamma: correlation of the noise inside a block at a jump, in (0, 1/3].
        stage_range: the stages' edges in time, 0 to 1, `levels` + 1 of them.
        renoise: false samples without the corrective noise where a stage begins.
    """

    preset: str | None = None
    start: Location | None = None
    variant: str | None = None
    patch: Positive | None = None
    conditioning: Literal["shared_context", "official"] | None = None
    shared_parts: tuple[SharedPart, ...] | None = None
    levels: Positive | None = None
    frames_per_unit: Positive | Literal["all"] | None = None
    history_units: Positive | None = None
    causal: bool | None = None
    gamma: Annotated[float, Field(gt=0, le=1 / 3)] | None = None
    stage_range: tuple[float, ...] | None = None
    renoise: bool | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        if self.variant is not None and self.start is None:
            raise ValueError("variant chooses one of the models at start, which is missing")
        if (self.preset is None) == (self.start is None):
            raise ValueError("give either preset (random weights) or start (a model to go on from)")
        return self


class Lora(Strict):
    """Low-rank adapters in every block: they alone train, and are added to the weights on export.

    Attributes:
        rank: of the matrices beside each adapted layer.
        alpha: what an adapter adds is scaled by alpha / rank.
        targets: which layers of the blocks have one.
    """

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 16.0
    targets: Annotated[tuple[Literal["attention", "mlp", "modulation"], ...], Field(min_length=1)] = (
        "attention",
        "mlp",
    )


# Of every stage alike, or of each stage, the coarsest first.
StageSteps = Positive | Annotated[tuple[Positive, ...], Field(min_length=1)]


class Sampling(Strict):
    """What the exported model's card recommends to whoever samples from it.

    What is None is as the model at `model.start` has it; without one, the paper's 20 and 10 steps, guidance 7 and 5,
    and no texts.

    Attributes:
        first_steps: denoising steps of the first unit, one number for every stage or one each, the coarsest first.
        later_steps: the same for every later unit.
        guidance: guidance scale of the first unit.
        video_guidance: guidance scale of later units.
        prompt_suffix: appended to every prompt.
        negative_prompt: the prompt that guidance leads away from.
    """

    first_steps: StageSteps | None = None
    later_steps: StageSteps | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None
    video_guidance: Annotated[float, Field(ge=0)] | None = None
    prompt_suffix: str | None = None
    negative_prompt: str | None = None
