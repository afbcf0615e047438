"""The spec of a DiT's training: `kind: train`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rayramid.models import storage
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.spec.hardware import Memory, Parallel
from rayramid.platform.training.spec.model import Lora, Model, Sampling
from rayramid.platform.training.spec.optimizer import Optimizer
from rayramid.platform.training.spec.run import RunSpec
from rayramid.platform.training.spec.seeing import Videos


class TrainSpec(RunSpec):
    """A training run of a DiT: the model, the curriculum, and where everything is kept.

    Attributes:
        model: what is trained.
        phases: the curriculum.
        lora: train adapters beside the weights of `model.start` instead of these.
        damaged_clips: what a missing or corrupt file does: `stop` names it and ends the run; `skip` leaves its clips
            out, and names and counts them in the metrics.
        optimizer: how gradients become updates.
        parallel: how the workers divide the work.
        memory: what a worker keeps on its device.
        compile: compile every block: slow to start and faster from then on, on GPUs.
        sampling: what the exported card recommends.
        videos: made while training, to look at.
    """

    kind: Literal["train"]
    model: Model
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    lora: Lora | None = None
    damaged_clips: Literal["stop", "skip"] = "stop"
    optimizer: Optimizer = Optimizer()
    parallel: Parallel = Parallel()
    memory: Memory = Memory()
    compile: bool = False
    sampling: Sampling = Sampling()
    videos: Videos = Videos()

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def places(self) -> dict[str, str]:
        """Where everything of the run is, by what it is."""
        made = {"model": "model", **({"videos": "validation"} if self.videos.prompts else {})}
        return super().places | {name: storage.join(self.output, place) for name, place in made.items()}

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """The phase of optimiser step `step` (from 0), and the step's number within it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise IndexError(step)

    @model_validator(mode="after")
    def _names_differ(self) -> "TrainSpec":
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"two phases have one name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _adapters_have_weights_beside_them(self) -> "TrainSpec":
        if self.lora is not None and self.model.start is None:
            raise ValueError("lora needs model.start: adapters are trained beside the weights of a model")
        return self
