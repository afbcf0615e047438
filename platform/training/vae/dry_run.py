"""What a VAE run would do, without doing it: sizes, what there is to read, memory."""

from dataclasses import dataclass

import torch
from torch import Tensor, UntypedStorage, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from rayramid.models.errors import UserError
from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.discriminator import PatchDiscriminator
from rayramid.models.vae.losses import reconstruction_error
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.past import Whole
from rayramid.models.vae.posterior import posterior_sample
from rayramid.platform.training.muon import Muon
from rayramid.platform.training.precision import Precision
from rayramid.platform.training.vae.clips import Readable, check, noted_clips, readable
from rayramid.platform.training.vae.model import configure
from rayramid.platform.training.vae.optimizers import vae_optimizers
from rayramid.platform.training.vae.perceptual import why_off
from rayramid.platform.training.vae.spec import Phase, VAESpec

MB = 1e6
# Of a weight in fp32, and of everything that goes with it.
BYTES = 4


@dataclass(frozen=True)
class PhaseReport:
    """One phase.

    Attributes:
        name: of the phase.
        videos: clips to draw from.
        images: images to draw from; 0 where single frames of videos are taken.
        too_short: clips left out for their length.
        too_small: clips and images left out for their size.
        held_out: clips for validation.
        steps: optimiser steps.
        frames_per_step: on average, over all workers.
        epochs: passes over the videos.
        latent: length, height and width of a clip's latent.
        activation_bytes: what the backward pass of the VAE needs of one clip (of a worker's stretch of it).
    """

    name: str
    videos: int
    images: int
    too_short: int
    too_small: int
    held_out: int
    steps: int
    frames_per_step: float
    epochs: float
    latent: tuple[int, int, int]
    activation_bytes: int


@dataclass(frozen=True)
class DryRun:
    """What a spec would do.

    Attributes:
        output: where.
        parameters: of the VAE.
        discriminator_parameters: 0 without one.
        steps: of all phases.
        weight_bytes: of each worker: weights, gradients, optimiser and average.
        warning: what the user should know, if anything.
        phases: in order.
    """

    output: str
    parameters: int
    discriminator_parameters: int
    steps: int
    weight_bytes: int
    warning: str | None
    phases: tuple[PhaseReport, ...]

    def text(self) -> str:
        """For people."""
        lines = [
            f"output         {self.output}",
            f"parameters     {self.parameters:,}",
            f"discriminator  {self.discriminator_parameters:,}",
            f"steps          {self.steps:,}",
            f"weights        {self.weight_bytes / MB:,.0f} MB per worker, with gradients, optimiser and average",
        ]
        for phase in self.phases:
            images = f"{phase.images:,} images" if phase.images else "single frames as images"
            lines += [
                f"phase {phase.name}: {phase.videos:,} videos, {images}, {phase.steps:,} steps",
                f"  left out: {phase.too_short:,} too short, {phase.too_small:,} too small; "
                f"held out: {phase.held_out:,}",
                f"  a step reads {phase.frames_per_step:,.1f} frames, the phase {phase.epochs:,.2f} epochs",
                f"  a clip becomes a latent of {'x'.join(map(str, phase.latent))} (TxHxW), "
                f"and keeps {phase.activation_bytes / MB:,.0f} MB per worker for the backward pass",
            ]
        return "\n".join([*lines, *([f"warning: {self.warning}"] if self.warning else [])])


def examine(spec: VAESpec) -> DryRun:
    """Looks at what the spec reads and what it costs.

    Raises:
        UserError: no clips to read, or sizes that don't fit the VAE.
    """
    config = configure(spec.model)
    adversarial = spec.losses.adversarial
    reports = []
    for phase in spec.phases:
        _check_sizes(phase, config)
        clips = noted_clips(spec, phase)
        found = readable(clips, phase, "train")
        check(found, phase)
        reports.append(_report(spec, phase, config, found, len(readable(clips, phase, "val").videos)))
    with torch.device("meta"):
        vae = CausalVAE(config)
        discriminator = PatchDiscriminator(adversarial.kind, adversarial.channels, adversarial.layers)
    parameters = _count(vae)
    discriminator_parameters = _count(discriminator) if adversarial.weight else 0
    # AdamW has two moments per weight, Muon one.
    moments = sum(
        weight.numel() * (1 if isinstance(optimizer, Muon) else 2)
        for optimizer in vae_optimizers(vae, spec.optimizer)
        for group in optimizer.param_groups
        for weight in group["params"]
    )
    return DryRun(
        output=spec.output,
        parameters=parameters,
        discriminator_parameters=discriminator_parameters,
        steps=spec.steps,
        # Weights, gradients, the average; the discriminator has no average.
        weight_bytes=BYTES * (3 * parameters + moments + 4 * discriminator_parameters),
        warning=why_off(spec.losses.perceptual),
        phases=tuple(reports),
    )


def activation_bytes(config: VAEConfig, frames: int, height: int, width: int, precision: Precision) -> int:
    """Bytes that the VAE's forward pass keeps for the backward pass of one clip; counted, without computing.

    Weights are taken for float32.
    """
    kept: dict[int, UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage
        return tensor

    device = torch.device("cpu")
    with FakeTensorMode():
        vae = CausalVAE(config)
        clip = torch.zeros(1, 3, frames, height, width)
        weights = {id(weight.untyped_storage()) for weight in vae.parameters()}
        with precision.autocast(device), saved_tensors_hooks(pack, lambda tensor: tensor):
            moments = vae.encode_chunk(clip, Whole())
            decoded = vae.decode_chunk(posterior_sample(moments.float(), torch.zeros(1)), Whole())
            reconstruction_error(decoded.float(), clip.float(), "l2")
    return sum(storage.nbytes() for name, storage in kept.items() if name not in weights)


def _report(spec: VAESpec, phase: Phase, config: VAEConfig, found: Readable, held_out: int) -> PhaseReport:
    videos_per_step = phase.clips_per_step * (1 - phase.image_share)
    latents = 1 + (phase.frames - 1) // config.temporal_ratio
    stretch = 1 + (-(-latents // phase.time_split) - 1) * config.temporal_ratio
    precision = Precision.choose(spec.precision, torch.device("cuda" if spec.workers.gpus else "cpu"))
    return PhaseReport(
        name=phase.name,
        videos=len(found.videos),
        images=len(found.images),
        too_short=found.too_short,
        too_small=found.too_small,
        held_out=held_out,
        steps=phase.steps,
        frames_per_step=videos_per_step * phase.frames + phase.clips_per_step * phase.image_share,
        epochs=phase.steps * videos_per_step / len(found.videos) if found.videos else 0.0,
        latent=(latents, phase.height // config.spatial_ratio, phase.width // config.spatial_ratio),
        activation_bytes=activation_bytes(config, stretch, phase.height, phase.width, precision),
    )


def _check_sizes(phase: Phase, config: VAEConfig) -> None:
    if phase.width % config.spatial_ratio or phase.height % config.spatial_ratio:
        raise UserError(f"phase '{phase.name}': size {phase.size} is no multiple of the VAE's {config.spatial_ratio}")
    if (phase.frames - 1) % config.temporal_ratio:
        raise UserError(f"phase '{phase.name}': {phase.frames} frames are not 1 + {config.temporal_ratio}n")
    if phase.time_split > 1 and phase.image_share < 1:
        latents = 1 + (phase.frames - 1) // config.temporal_ratio
        if latents < 2 * phase.time_split:
            raise UserError(
                f"phase '{phase.name}': {phase.frames} frames make {latents} latents, time_split {phase.time_split} "
                f"needs two for each worker: {1 + config.temporal_ratio * (2 * phase.time_split - 1)} frames"
            )


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
