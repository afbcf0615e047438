"""What learns: one rank's part of the model with its optimisers and its average, and one step of them."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rayramid.models.errors import UserError
from rayramid.models.objective import Loss, TrainingClip, objective, training_pack
from rayramid.platform.training.ema import EMA
from rayramid.platform.training.feed import Share
from rayramid.platform.training.gradient_noise import NoiseTally, gradients_of, half_of
from rayramid.platform.training.lora import adapt
from rayramid.platform.training.mesh import Mesh, check_parallel, shard, sum_gradients
from rayramid.platform.training.model import build
from rayramid.platform.training.optimizer import build_optimizers, clip_gradients, learning_rate
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.plan import phase_seed
from rayramid.platform.training.precision import Precision
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.spec.train import TrainSpec
from rayramid.platform.training.state import TrainState
from rayramid.platform.training.tally import Tally

log = logging.getLogger(__name__)


class Learner:
    """The weights of a run and what moves them: packs go in, updates come out.

    Attributes:
        model: the DiT, sharded over the ranks.
        pyramid: its spatial pyramid.
        precision: its number formats.
        mesh: how the ranks divide the work.
        state: everything that a checkpoint holds.
        noise: of the gradients of some steps.
    """

    def __init__(self, spec: TrainSpec, ranks: Ranks) -> None:
        self.spec, self.ranks = spec, ranks
        self.precision = Precision.choose(spec.precision, ranks.device)
        self.model, self.pyramid = build(spec.model, spec.seed, self.precision.weights)
        if spec.lora is not None:
            adapt(self.model, spec.lora)
        check_parallel(spec.parallel, ranks.world, self.model.config.heads)
        self.mesh = Mesh.of(ranks, spec.parallel, offload=spec.memory.offload_weights)
        self.model.recompute = spec.memory.recompute
        self.model.offload_inputs = spec.memory.offload_activations
        self.model.sequence_group = self.mesh.sequence
        if spec.compile:
            self.model.compile_blocks()
        shard(self.model, self.mesh, self.precision, spec.memory)
        optimizers = build_optimizers(self.model, self.model.blocks, spec.optimizer)
        self.state = TrainState(self.model, optimizers, EMA(self.model, spec.ema))
        self.noise = NoiseTally()

    def step(self, phase: Phase, local: int, share: Share, tally: Tally) -> float:
        """One optimiser step; returns the gradients' norm. A step that is not finite is counted and changes nothing.

        Raises:
            UserError: more such steps than the spec bears, or no clip of the whole step can be read.
        """
        targets = self.units(share) * phase.stages(self.model.config.levels)
        half = self.half_gradient(phase, share, targets)
        finite = self.backward(phase, share, share.weights, targets, tally)
        if half is not None:
            self.noise.add(*half, gradients_of(self.model), targets)
        norm = clip_gradients(list(self.model.parameters()), self.spec.optimizer.clip)
        rate = learning_rate(phase, local)
        finite = finite and math.isfinite(norm)
        self.state.move(rate, norm, self.spec.optimizer, phase.name, finite=finite)
        return norm

    def units(self, share: Share) -> int:
        """Target units of the whole step that could be read, over all ranks; a collective where any may be damaged."""
        if self.spec.damaged_clips == "stop":
            return share.units
        damaged = self.mesh.gather(share.damaged)
        units = share.units - sum(each.units for each in damaged)
        if units == 0:
            raise UserError(f"no clip of step {self.state.step + 1} can be read; the first damaged: {damaged[0].file}")
        return units

    def backward(
        self, phase: Phase, share: Share, weights: Sequence[float], targets: int, tally: Tally | None = None
    ) -> bool:
        """Adds the gradient of the mean over `targets` targets of all ranks: those of the first packs, by weight.

        Returns whether the losses of all ranks are finite.
        """
        level_weights = weights_by_level(phase, self.model.config.levels)
        finite = torch.ones((), dtype=torch.bool, device=self.ranks.device)
        for number, (clips, weight) in enumerate(zip(share.bins, weights, strict=False), 1):
            # Packs add to gradients in place, and ranks sum theirs once; but offloaded ones leave the device at once.
            sum_gradients(self.model, now=number == len(weights) or self.spec.memory.offload_weights)
            loss = self.loss(clips, phase, phase_seed(self.spec.seed, phase))
            total = loss.total(level_weights)
            # FSDP averages over all ranks, and what those that split a pack compute of it adds up.
            (total * (weight * self.mesh.readers / targets)).backward()
            finite &= total.detach().isfinite()
            if weight and tally is not None and self.mesh.leads:
                tally.add(loss)
        return bool(self.ranks.all(finite))

    def half_gradient(self, phase: Phase, share: Share, targets: int) -> tuple[list[Tensor], int] | None:
        """Where the gradient's noise is due: the gradient of half of the step's targets, and how many these are.

        Computed apart, so that the step is the same whether it is measured or not.
        """
        every = self.spec.metrics.gradient_noise_every
        weights = half_of(share.weights, self.mesh.readers, self.mesh.reader)
        if every is None or (self.state.step + 1) % every or weights is None:
            return None
        packs = zip(share.bins, weights, strict=False)
        units = sum(clip.units for clips, weight in packs if weight for clip in clips)
        half = phase.stages(self.model.config.levels) * sum(self.mesh.gather([units]))
        if not 0 < half < targets:
            return None
        self.backward(phase, share, weights, half)
        gradients = gradients_of(self.model)
        self.model.zero_grad()
        return gradients, half

    def loss(self, clips: tuple[TrainingClip, ...], phase: Phase, seed: int) -> Loss:
        """The loss of one pack."""
        pack, targets = training_pack(
            clips, self.model.config, self.pyramid, seed=seed, history_noise=phase.history_noise
        )
        device = self.ranks.device
        with self.precision.autocast(device):
            velocities = self.model(pack.to(device))
        return objective(velocities, targets.to(device))


def weights_by_level(phase: Phase, levels: int) -> tuple[float, ...] | None:
    """The phase's `stage_weights` by level, full resolution first, with mean 1; None when all stages weigh the same.

    Raises:
        UserError: not one for each stage.
    """
    if phase.stage_weights is None:
        return None
    if len(phase.stage_weights) != levels:
        raise UserError(
            f"phase '{phase.name}' has {len(phase.stage_weights)} stage_weights and the model {levels} stages"
        )
    mean = sum(phase.stage_weights) / levels
    return tuple(weight / mean for weight in reversed(phase.stage_weights))


def check_finest(phase: Phase, levels: int) -> None:
    """UserError for a phase whose `finest_level` the model does not have."""
    if phase.finest_level >= levels:
        raise UserError(
            f"phase '{phase.name}' has finest_level {phase.finest_level}; the model has levels 0 to {levels - 1}"
        )
