"""Gradients to updates: the learning rate of a step, AdamW or Muon, and the guard against non-finite steps."""

import math
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rayramid.models.errors import UserError
from rayramid.platform.training.muon import Muon
from rayramid.platform.training.spec.curriculum import Schedule
from rayramid.platform.training.spec.optimizer import Optimizer


class Paced(Protocol):
    """A phase of any curriculum, as far as its learning rate goes."""

    @property
    def steps(self) -> int:
        """Optimiser steps."""

    @property
    def learning_rate(self) -> float:
        """The peak."""

    @property
    def schedule(self) -> Schedule:
        """How the learning rate moves over the phase."""


def learning_rate(phase: Paced, step: int) -> float:
    """The learning rate of the phase's step `step`, counted from 0."""
    schedule = phase.schedule
    if step < schedule.warmup:
        return phase.learning_rate * (step + 1) / schedule.warmup
    progress = (step - schedule.warmup) / max(phase.steps - schedule.warmup, 1)
    if schedule.kind == "constant":
        factor = 1.0
    elif schedule.kind == "linear":
        factor = 1 - (1 - schedule.final) * progress
    else:
        factor = schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2
    return phase.learning_rate * factor


def build_optimizers(model: nn.Module, hidden: Iterable[nn.Module], settings: Optimizer) -> list[torch.optim.Optimizer]:
    """The optimisers of all parameters that train; each group's `lr_scale` multiplies the step's learning rate.

    Weight decay falls on matrices alone. Under `muon`, the matrices inside `hidden` go to Muon.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices, rest = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
    optimizers: list[torch.optim.Optimizer] = []
    if settings.kind == "muon":
        inside = {id(parameter) for module in hidden for parameter in module.parameters()}
        group = {"params": [p for p in matrices if id(p) in inside], "lr_scale": settings.muon_learning_rate}
        optimizers += [Muon([group], weight_decay=settings.weight_decay)] if group["params"] else []
        matrices = [p for p in matrices if id(p) not in inside]
    if settings.kind == "adamw8bit":
        # Imported only where used: it takes seconds.
        from rayramid.platform.training.adam8bit import AdamW8bit

        group = {"params": matrices, "lr_scale": 1.0}
        optimizers.append(AdamW8bit([group], betas=settings.betas, weight_decay=settings.weight_decay))
        matrices = []
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay, "lr_scale": 1.0},
        {"params": rest, "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    if matrices or rest:
        # foreach keeps the order of operations equal on one and on many processes.
        adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=settings.betas, foreach=True)
        optimizers.insert(0, adamw)
    return optimizers


def check_optimizer(settings: Optimizer) -> None:
    """Refuses an optimiser that is not installed here, with what to install."""
    if settings.kind == "adamw8bit" and find_spec("torchao") is None:
        raise UserError("optimizer.kind adamw8bit: torchao is not installed; pip install 'rayramid[adam8bit]'")


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Gives every group its share of the step's learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> float:
    """Scales all gradients so that their norm is at most `largest`; returns the norm before, the same on all ranks.

    A non-finite norm leaves the gradients as they are: the caller drops them.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = nn.utils.get_total_norm(gradients)
    total = norm.full_tensor() if isinstance(norm, DTensor) else norm
    if torch.isfinite(total):
        nn.utils.clip_grads_with_norm_(parameters, largest, total)
    return float(total)
