"""What the specs of all training runs have in common."""

from abc import ABC, abstractmethod
from typing import Literal

from rayramid.models import storage
from rayramid.platform.training.spec.fields import Below1, Count, Location, Positive, Strict
from rayramid.platform.training.spec.hardware import Workers
from rayramid.platform.training.spec.seeing import MetricsSettings


class Checkpoints(Strict):
    """When the state is saved and how long it is kept.

    Attributes:
        every: steps between two checkpoints; the last step always has one.
        keep_last: so many of the newest stay.
        keep_every: checkpoints at multiples of so many steps stay for ever; none when None.
        failures: so many checkpoints in a row may fail to be written before the run ends; until then it goes on, and
            the next one is due as ever.
    """

    every: Positive = 500
    keep_last: Positive = 2
    keep_every: Positive | None = None
    failures: Count = 2


class Validation(Strict):
    """The loss on held-out clips with fixed noise, of the EMA weights.

    Attributes:
        every: steps between two measurements; the last step always has one.
        clips: how many clips of the split `val` are used, the first in the order of their ids.
    """

    every: Positive = 500
    clips: Positive = 64


class RunSpec(Strict, ABC):
    """What every training run has, whatever it trains.

    Attributes:
        kind: what it trains.
        output: the folder or URL of the run: `checkpoints/`, `metrics.jsonl`, `tensorboard/` and the model.
        seed: of everything that is drawn.
        precision: `bfloat16` is autocast over float32 weights; `auto` takes it where the hardware is faster in it.
        ema: the decay of the weights' moving average, which is what gets exported.
        checkpoints: when the state is saved.
        validation: the measurement on held-out clips.
        workers: what the run occupies.
        log_every: steps between two lines of metrics.
        metrics: what is measured, and where it goes beside the output.
    """

    kind: str
    output: Location
    seed: Count = 0
    precision: Literal["auto", "bfloat16", "float32", "float64"] = "auto"
    ema: Below1 = 0.999
    checkpoints: Checkpoints = Checkpoints()
    validation: Validation = Validation()
    workers: Workers = Workers()
    log_every: Positive = 10
    metrics: MetricsSettings = MetricsSettings()

    @property
    @abstractmethod
    def steps(self) -> int:
        """Optimiser steps of all phases."""

    @property
    def places(self) -> dict[str, str]:
        """Where everything of the run is, by what it is."""
        found = {"checkpoints": "checkpoints", "metrics": "metrics.jsonl", "tensorboard": "tensorboard"}
        return {name: storage.join(self.output, place) for name, place in found.items()}
