"""Everything that a run needs to go on as if it had never stopped."""

import logging
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

from rayramid.models.errors import UserError
from rayramid.platform.training.ema import EMA
from rayramid.platform.training.optimizer import set_learning_rate
from rayramid.platform.training.spec.optimizer import Optimizer

log = logging.getLogger(__name__)

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

    def move(
        self,
        rate: float,
        norm: float,
        settings: Optimizer,
        phase: str,
        *,
        finite: bool,
        resting: Sequence[torch.optim.Optimizer] = (),
    ) -> None:
        """Ends a step, whose gradients are there: moves weights and average, or counts the step as skipped.

        Args:
            rate: the step's learning rate.
            norm: of the gradients, for the log.
            settings: say how many skipped steps a run survives.
            phase: the name of the phase, for the error.
            finite: whether losses and gradients are.
            resting: optimisers that don't move yet.

        Raises:
            UserError: more steps were skipped than the settings bear.
        """
        self.step += 1
        if finite:
            set_learning_rate(self.optimizers, rate)
            for optimizer in self.optimizers:
                if optimizer not in resting:
                    optimizer.step()
            self.ema.update(self.step)
        else:
            self.skipped += 1
            log.warning("step skipped", extra={"step": self.step, "gradient_norm": norm})
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if self.skipped > settings.skip_limit:
            raise UserError(
                f"{self.skipped} steps had a loss or gradient that is not finite (skip_limit {settings.skip_limit}); "
                f"lower learning_rate or look at the data of phase '{phase}'"
            )

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
