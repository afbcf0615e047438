"""What learns: the VAE and its discriminator with their optimisers and the average, and one step of them.

Weights are replicated; a step's loss is the mean over its clips, wherever they are computed, and gradients are summed.
Shapes: B clips, T frames.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rayramid.models.precision import widen
from rayramid.models.vae.discriminator import PatchDiscriminator
from rayramid.models.vae.losses import adaptive_weight, deceiving_loss, hinge_loss, reconstruction_error
from rayramid.models.vae.perceptual import Perceptual
from rayramid.models.vae.posterior import posterior_kl, posterior_sample
from rayramid.platform.training.ema import EMA
from rayramid.platform.training.optimizer import clip_gradients, learning_rate
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.precision import Precision
from rayramid.platform.training.state import TrainState
from rayramid.platform.training.vae.batch import Batch, batch_of, batches, neighbours
from rayramid.platform.training.vae.feed import Share
from rayramid.platform.training.vae.model import build
from rayramid.platform.training.vae.optimizers import discriminator_optimizer, vae_optimizers
from rayramid.platform.training.vae.perceptual import perceptual_of
from rayramid.platform.training.vae.spec import Phase, VAESpec
from rayramid.platform.training.vae.tally import Tally


class Learner:
    """The weights of a run and what moves them: clips go in, updates come out.

    Attributes:
        vae: the VAE, whole on every rank.
        discriminator: None without an adversarial term.
        perceptual: None without LPIPS.
        precision: number formats.
        state: everything that a checkpoint holds.
    """

    def __init__(self, spec: VAESpec, ranks: Ranks) -> None:
        self.spec, self.ranks = spec, ranks
        self.precision = Precision.choose(spec.precision, ranks.device)
        self.vae = build(spec, ranks).to(ranks.device, self.precision.weights)
        optimizers = vae_optimizers(self.vae, spec.optimizer)
        parts: dict[str, nn.Module] = {"vae": self.vae}
        self.discriminator: PatchDiscriminator | None = None
        if spec.losses.adversarial.weight:
            settings = spec.losses.adversarial
            torch.manual_seed(spec.seed + 1)
            self.discriminator = PatchDiscriminator(settings.kind, settings.channels, settings.layers)
            self.discriminator.to(ranks.device, self.precision.weights)
            optimizers.append(discriminator_optimizer(self.discriminator, settings))
            parts["discriminator"] = self.discriminator
        self.state = TrainState(nn.ModuleDict(parts), optimizers, EMA(self.vae, spec.ema))
        self.perceptual: Perceptual | None = perceptual_of(spec.losses.perceptual)
        if self.perceptual is not None:
            self.perceptual.to(ranks.device, self.precision.weights)
        self._groups = {phase.time_split: neighbours(phase.time_split, ranks) for phase in spec.phases}

    @property
    def adversarial(self) -> bool:
        """Whether the discriminator takes part in the next step."""
        return self.discriminator is not None and self.state.step >= self.spec.losses.adversarial.start

    def step(self, phase: Phase, local: int, work: Share, tally: Tally) -> float:
        """One optimiser step; returns the norm of the VAE's gradients. One that is not finite changes nothing.

        Raises:
            UserError: more such steps than the spec bears.
        """
        adversarial = self.adversarial
        for together in batches(work, phase.clips_at_once):
            group = self._groups[phase.time_split]
            batch = batch_of(together, self.vae.config, self.precision.weights, self.ranks.device, group)
            self._learn(batch, 1 / work.visits, adversarial, tally)
        tally.steps += 1
        norms = [self._clipped(self.vae)]
        if adversarial:
            assert self.discriminator is not None
            norms.append(self._clipped(self.discriminator))
        rate, finite = learning_rate(phase, local), all(map(math.isfinite, norms))
        resting = [] if adversarial or self.discriminator is None else self.state.optimizers[-1:]
        self.state.move(rate, norms[0], self.spec.optimizer, phase.name, finite=finite, resting=resting)
        return norms[0]

    def _learn(self, batch: Batch, weight: float, adversarial: bool, tally: Tally) -> None:
        """The gradients of some clips, each `weight` times; the discriminator's on what the VAE made of them."""
        losses, target = self.spec.losses, batch.frames
        with self.precision.autocast(self.ranks.device):
            moments = self.vae.encode_chunk(target, batch.past())
            decoded = self.vae.decode_chunk(posterior_sample(widen(moments), batch.noise), batch.past())
        decoded = widen(decoded)
        # The terms see the frames without their history: their gradients meet here, and go back through the VAE once.
        frames = decoded.detach().requires_grad_()
        terms = {
            "reconstruction": reconstruction_error(frames, target, losses.reconstruction.kind) * batch.share,
            "kl": posterior_kl(widen(moments)) / batch.values,
        }
        faithful = losses.reconstruction.weight * terms["reconstruction"]
        if self.perceptual is not None:
            with self.precision.autocast(self.ranks.device):
                distances_BT = self.perceptual(frames, target)
            terms["perceptual"] = widen(distances_BT).mean(1) * batch.share
            faithful = faithful + losses.perceptual.weight * terms["perceptual"]
        (gradient,) = torch.autograd.grad(faithful.sum(), frames)
        total = faithful.detach() + losses.kl * terms["kl"].detach()
        if adversarial:
            assert self.discriminator is not None
            with self.precision.autocast(self.ranks.device):
                logits = self.discriminator(frames, batch.past())
            terms["adversarial"] = deceiving_loss(widen(logits)) * batch.share
            (deceiving,) = torch.autograd.grad(terms["adversarial"].sum(), frames)
            adaptive = losses.adversarial.weight * self._adaptive_weight(decoded, gradient, deceiving, batch.group)
            gradient = gradient + adaptive.view(-1, 1, 1, 1, 1) * deceiving
            total = total + adaptive * terms["adversarial"].detach()
            terms["adaptive_weight"] = adaptive * batch.share
        torch.autograd.backward(
            [decoded, terms["kl"].sum()], [gradient * weight, terms["kl"].new_tensor(losses.kl * weight)]
        )
        if adversarial:
            assert self.discriminator is not None
            with self.precision.autocast(self.ranks.device):
                real = self.discriminator(target, batch.past())
                fake = self.discriminator(decoded.detach(), batch.past())
            terms["discriminator"] = hinge_loss(widen(real), widen(fake)) * batch.share
            (terms["discriminator"].sum() * weight).backward()
        tally.add("loss", total, weight)
        for name, term in terms.items():
            tally.add(name, term, weight)

    def _adaptive_weight(
        self, decoded: Tensor, faithful: Tensor, deceiving: Tensor, group: dist.ProcessGroup | None
    ) -> Tensor:
        """The weight of each clip, [B], from two terms' gradients by the decoded frames. A collective of `group`."""
        last = self.vae.decoder.out.weight
        by_clip = []
        for gradient in (faithful, deceiving):
            found = []
            for i in range(len(gradient)):
                alone = torch.zeros_like(gradient)
                alone[i] = gradient[i]
                found.append(torch.autograd.grad(decoded, last, alone, retain_graph=True)[0])
            by_clip.append(torch.stack(found))
            if group is not None:
                dist.all_reduce(by_clip[-1], group=group)
        return adaptive_weight(*by_clip)

    def _clipped(self, module: nn.Module) -> float:
        """Sums a module's gradients over the ranks and clips them; returns their norm before."""
        weights = list(module.parameters())
        for weight in weights:
            if weight.grad is None:
                # What no clip of this rank touched, another rank's may have; and averages decay alike on all.
                weight.grad = torch.zeros_like(weight)
        if self.ranks.world > 1:
            _sum_over_ranks([weight.grad for weight in weights if weight.grad is not None])
        return clip_gradients(weights, self.spec.optimizer.clip)


def _sum_over_ranks(gradients: Sequence[Tensor]) -> None:
    """One transfer for all of them: there are hundreds, most of them small."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))
