"""Everything that a run needs to go on as if it had never stopped."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from rayramid.platform.training.ema import EMA

# By parameter name, so that the state fits any number of ranks and any grouping of the parameters.
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
# Frozen weights are where the run started from.
_TRAINED, _SOME = StateDictOptions(ignore_frozen_params=True), StateDictOptions(strict=False)


class TrainState:
    """Weights, optimiser state, average, and how far the run is.

    No random state: all randomness of a step is a function of the seed and the plan's position, which is `step`.

    Attributes:
        model: the weights, of which those that train are saved.
        optimizers: all optimisers of the model's parameters.
        ema: the moving average.
        step: optimiser steps done, skipped ones included.
        skipped: how many of them were not finite.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], ema: EMA) -> None:
        self.model, self.optimizers, self.ema = model, list(optimizers), ema
        self.step = self.skipped = 0

    def tensors(self) -> dict[str, Any]:
        """What a checkpoint holds; the tensors are the live ones."""
        return {
            "model": get_model_state_dict(self.model, options=_TRAINED),
            "optimizer": get_optimizer_state_dict(self.model, self.optimizers, options=_FLAT),
            "ema": self.ema.average,
        }

    def restore(self, tensors: dict[str, Any], step: int, skipped: int) -> None:
        """Takes over what was loaded into `tensors()`."""
        set_model_state_dict(self.model, tensors["model"], options=_SOME)
        set_optimizer_state_dict(self.model, self.optimizers, tensors["optimizer"], options=_FLAT)
        for name, average in tensors["ema"].items():
            self.ema.average[name].copy_(average)
        self.step, self.skipped = step, skipped
