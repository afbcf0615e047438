"""What a run reads: datasets in phases, each with its learning rate."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from rayramid.platform.training.spec.fields import Below1, Count, Location, Positive, Share, Strict, plain_paths


class Outline(Strict):
    """What a dataset is going to hold, so that `--dry-run` can count before there is one; training never reads it.

    Attributes:
        clips: how many there will be, by bucket (`768x1280x31`; images end in `x1`).
        text_tokens: of a caption.
    """

    clips: Annotated[dict[Annotated[str, Field(pattern=r"^\d+x\d+x[1-9]\d*$")], Positive], Field(min_length=1)]
    text_tokens: Positive = 96


class Root(Strict):
    """One latent dataset that a phase reads.

    Attributes:
        root: its folder or URL.
        version: a version of its manifest; the newest when None. A run keeps the version it started with.
        weight: how often each of its clips is visited in one epoch, on average.
        outline: what `--dry-run` counts with while there is no dataset at `root`.
    """

    root: Location
    version: Positive | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    outline: Outline | None = None


class Schedule(Strict):
    """The learning rate over a phase, as a factor of the phase's `learning_rate`.

    Attributes:
        kind: the form after the warm-up.
        warmup: steps of linear rise from 0.
        final: the factor at the end of the phase (cosine, linear).
    """

    kind: Literal["constant", "cosine", "linear"] = "constant"
    warmup: Count = 0
    final: Share = 0.0


class Phase(Strict):
    """One stretch of the curriculum.

    Attributes:
        name: shown in the metrics.
        data: the datasets it reads; a plain path is a dataset of weight 1.
        steps: optimiser steps.
        learning_rate: the peak.
        schedule: how the learning rate moves over the phase.
        buckets: only these, written as the dataset writes them (`128x128x4`); all when None.
        latents: clips with fewer latents are left out, longer ones are not.
        tokens_per_bin: the token budget of one packed sequence.
        bins_per_step: packed sequences in one optimiser step, over all workers.
        image_share: the share of tokens that images have; 1/8 (as in the paper) when None and there are images.
        units_per_clip: how many consecutive units of a clip are targets of one visit.
        first_units: only so many units from a clip's start are targets; all when None. What the caption alone can tell
            is learnt in these: later units have a history to go by.
        finest_level: stages of this level and coarser ones are targets: 0 is all of them, 1 leaves out full resolution.
            What is where is decided in the coarse stages, which cost a fraction of the finest.
        stage_weights: what a target weighs in the loss, by stage, coarsest first; all alike when None.
        text_dropout: the share of visits with the empty prompt.
        history_noise: the context is corrupted by a noise of strength uniform in [0, history_noise].
    """

    name: str
    data: Annotated[
        tuple[Root, ...],
        Field(min_length=1),
        BeforeValidator(plain_paths, json_schema_input_type=str | list[str | Root]),
    ]
    steps: Positive
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Schedule = Schedule()
    buckets: tuple[str, ...] | None = None
    latents: Positive = 1
    tokens_per_bin: Positive = 16384
    bins_per_step: Positive = 8
    image_share: Share | None = None
    units_per_clip: Positive = 2
    first_units: Positive | None = None
    finest_level: Count = 0
    stage_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    text_dropout: Share = 0.1
    history_noise: Below1 = 1 / 3

    def stages(self, levels: int) -> int:
        """How many of the stages of a model with `levels` are targets."""
        return levels - self.finest_level
