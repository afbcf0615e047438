"""What learns: the VAE and its discriminator with their optimisers and the average, and one step of them.

Weights are replicated; a step's loss is the mean over its clips, wherever they are computed, and gradients are summed.
Shapes: T frames, H height, W width.
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from rayramid.models.errors import UserError
from rayramid.models.precision import widen
from rayramid.models.vae.context_parallel import Neighbour, share
from rayramid.models.vae.discriminator import PatchDiscriminator
from rayramid.models.vae.losses import adaptive_weight, deceiving_loss, hinge_loss, reconstruction_error
from rayramid.models.vae.past import Past, Whole
from rayramid.models.vae.perceptual import Perceptual
from rayramid.models.vae.posterior import posterior_kl, posterior_sample
from rayramid.platform.training.ema import EMA
from rayramid.platform.training.optimizer import clip_gradients, learning_rate, set_learning_rate
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.precision import Precision
from rayramid.platform.training.state import TrainState
from rayramid.platform.training.vae.feed import Frames, Share
from rayramid.platform.training.vae.model import build
from rayramid.platform.training.vae.optimizers import discriminator_optimizer, vae_optimizers
from rayramid.platform.training.vae.perceptual import perceptual_of
from rayramid.platform.training.vae.plan import Part
from rayramid.platform.training.vae.spec import Phase, VAESpec
from rayramid.platform.training.vae.tally import Tally

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stretch:
    """A rank's part of a clip as the VAE takes it.

    Attributes:
        frames: [1, 3, T, H, W] in [-1, 1], this rank's.
        noise: of the posterior sample, for this rank's latents.
        values: of the whole clip's latents.
        share: this rank's frames by all frames of the clip.
        past: where the convolutions of one pass find the frames before.
        group: the ranks that share the clip; None for one alone.
    """

    frames: Tensor
    noise: Tensor
    values: int
    share: float
    past: Callable[[], Past]
    group: dist.ProcessGroup | None


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
        self._groups: dict[int, dist.ProcessGroup] = {}

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
        for part, clip in zip(work.parts, work.clips, strict=True):
            self._learn(self._stretch(part, clip), 1 / work.visits, adversarial, tally)
        tally.steps += 1
        norms = [self._clipped(self.vae)]
        if adversarial:
            assert self.discriminator is not None
            norms.append(self._clipped(self.discriminator))
        self.state.step += 1
        if all(map(math.isfinite, norms)):
            set_learning_rate(self.state.optimizers, learning_rate(phase, local))
            moving = self.state.optimizers if adversarial or self.discriminator is None else self.state.optimizers[:-1]
            for optimizer in moving:
                optimizer.step()
            self.state.ema.update(self.state.step)
        else:
            self.state.skipped += 1
            log.warning("step skipped", extra={"step": self.state.step, "gradient_norm": norms[0]})
        for optimizer in self.state.optimizers:
            optimizer.zero_grad()
        if self.state.skipped > self.spec.optimizer.skip_limit:
            raise UserError(
                f"{self.state.skipped} steps had a loss or gradient that is not finite (skip_limit "
                f"{self.spec.optimizer.skip_limit}); lower learning_rate or look at the data of phase '{phase.name}'"
            )
        return norms[0]

    def _learn(self, stretch: Stretch, weight: float, adversarial: bool, tally: Tally) -> None:
        """The gradients of one clip, `weight` times; the discriminator's on what the VAE made of it."""
        losses, frames = self.spec.losses, stretch.frames
        with self.precision.autocast(self.ranks.device):
            moments = self.vae.encode_chunk(frames, stretch.past())
            decoded = self.vae.decode_chunk(posterior_sample(widen(moments), stretch.noise), stretch.past())
        moments, decoded = widen(moments), widen(decoded)
        terms = {
            "reconstruction": reconstruction_error(decoded, frames, losses.reconstruction.kind) * stretch.share,
            "kl": posterior_kl(moments).sum() / stretch.values,
        }
        faithful = losses.reconstruction.weight * terms["reconstruction"]
        if self.perceptual is not None:
            with self.precision.autocast(self.ranks.device):
                distances = self.perceptual(decoded, frames)
            terms["perceptual"] = widen(distances).mean() * stretch.share
            faithful = faithful + losses.perceptual.weight * terms["perceptual"]
        total = faithful + losses.kl * terms["kl"]
        if adversarial:
            assert self.discriminator is not None
            self.discriminator.requires_grad_(False)
            with self.precision.autocast(self.ranks.device):
                logits = self.discriminator(decoded, stretch.past())
            self.discriminator.requires_grad_(True)
            terms["adversarial"] = deceiving_loss(widen(logits)) * stretch.share
            adaptive = self._adaptive_weight(faithful, terms["adversarial"], stretch.group)
            total = total + losses.adversarial.weight * adaptive * terms["adversarial"]
            tally.add("adaptive_weight", adaptive * stretch.share, weight)
        (total * weight).backward()
        if adversarial:
            assert self.discriminator is not None
            with self.precision.autocast(self.ranks.device):
                real = self.discriminator(frames, stretch.past())
                fake = self.discriminator(decoded.detach(), stretch.past())
            terms["discriminator"] = hinge_loss(widen(real), widen(fake)) * stretch.share
            (terms["discriminator"] * weight).backward()
        tally.add("loss", total, weight)
        for name, term in terms.items():
            tally.add(name, term, weight)

    def _adaptive_weight(self, faithful: Tensor, deceiving: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        last = self.vae.decoder.out.weight
        gradients = [torch.autograd.grad(term, last, retain_graph=True)[0] for term in (faithful, deceiving)]
        if group is not None:
            for gradient in gradients:
                dist.all_reduce(gradient, group=group)
        return adaptive_weight(*gradients)

    def _stretch(self, part: Part, clip_THWC: Frames) -> Stretch:
        config = self.vae.config
        frames, height, width = clip_THWC.shape[:3]
        latents = 1 + (frames - 1) // config.temporal_ratio
        start, stop = share(latents, part.part, part.parts) if part.parts > 1 else (0, latents)
        first, last = (1 + (latent - 1) * config.temporal_ratio if latent else 0 for latent in (start, stop))
        device, dtype = self.ranks.device, self.precision.weights
        mine = torch.from_numpy(clip_THWC[first:last].copy()).permute(3, 0, 1, 2)[None].to(device)
        # Drawn for the whole clip: every rank takes its own part of the same noise.
        shape = (config.latent_channels, latents, height // config.spatial_ratio, width // config.spatial_ratio)
        generator = torch.Generator().manual_seed(part.visit.key)
        noise = torch.randn((1, *shape), generator=generator, dtype=dtype)
        group = self._group(part.parts) if part.parts > 1 else None
        return Stretch(
            frames=mine.to(dtype) / 127.5 - 1,
            noise=noise[:, :, start:stop].to(device),
            values=prod(shape),
            share=(last - first) / frames,
            past=Whole if group is None else partial(Neighbour, group),
            group=group,
        )

    def _group(self, parts: int) -> dist.ProcessGroup:
        """The neighbouring ranks that share a clip with this one."""
        if parts not in self._groups:
            mine: dist.ProcessGroup | None = None
            for first in range(0, self.ranks.world - parts + 1, parts):
                # Every rank takes part in the making of every group.
                group = dist.new_group(list(range(first, first + parts)))
                if first <= self.ranks.rank < first + parts:
                    assert isinstance(group, dist.ProcessGroup)
                    mine = group
            assert mine is not None
            self._groups[parts] = mine
        return self._groups[parts]

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


def _sum_over_ranks(gradients: Iterable[Tensor]) -> None:
    """One transfer for all of them: there are hundreds, most of them small."""
    parts = list(gradients)
    flat = _flatten_dense_tensors(parts)
    dist.all_reduce(flat)
    for part, total in zip(parts, _unflatten_dense_tensors(flat, parts), strict=True):
        part.copy_(total)
