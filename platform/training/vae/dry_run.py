"""What a VAE run would do, without doing it: sizes, what there is to read, memory."""

from dataclasses import dataclass

import pyarrow as pa
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
from rayramid.platform.training.vae.clips import check, noted_clips, readable
from rayramid.platform.training.vae.model import configure
from rayramid.platform.training.vae.optimizers import vae_optimizers
from rayramid.platform.training.vae.perceptual import why_off
from rayramid.platform.training.vae.spec import Phase, VAESpec

MB = 1e6
# Of a weight in fp32, and of everything that goes with it.
BYTES = 4


@dataclass(frozen=True)
class ClipsReport:
    """What a phase finds to read.

    Attributes:
        videos: clips to draw from.
        images: images to draw from; 0 where single frames of videos are taken.
        too_short: clips left out for their length.
        too_small: clips and images left out for their size.
        held_out: clips for validation.
        epochs: passes over the videos in the whole phase.
    """

    videos: int
    images: int
    too_short: int
    too_small: int
    held_out: int
    epochs: float


@dataclass(frozen=True)
class PhaseReport:
    """One phase.

    Attributes:
        name: of the phase.
        steps: optimiser steps.
        frames_per_step: on average, over all workers.
        latent: length, height and width of a clip's latent.
        activation_bytes: what the backward pass of the VAE needs of the clips that a worker computes at once (of its
            stretch of them).
        clips: what there is to read; None where the data is not there yet.
    """

    name: str
    steps: int
    frames_per_step: float
    latent: tuple[int, int, int]
    activation_bytes: int
    clips: ClipsReport | None


@dataclass(frozen=True)
class DryRun:
    """What a spec would do.

    Attributes:
        output: where.
        parameters: of the VAE.
        discriminator_parameters: 0 without one.
        steps: of all phases.
        weight_bytes: of each worker: weights, gradients, optimiser and average.
        warnings: what the user should know, and what is missing for the run to start.
        phases: in order.
    """

    output: str
    parameters: int
    discriminator_parameters: int
    steps: int
    weight_bytes: int
    warnings: tuple[str, ...]
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
            lines += [
                f"phase {phase.name}: {phase.steps:,} steps of {phase.frames_per_step:,.1f} frames",
                f"  a clip becomes a latent of {'x'.join(map(str, phase.latent))} (TxHxW); a worker keeps "
                f"{phase.activation_bytes / MB:,.0f} MB for the backward pass",
            ]
            if phase.clips is not None:
                clips = phase.clips
                images = f"{clips.images:,} images" if clips.images else "single frames as images"
                lines += [
                    f"  {clips.videos:,} videos, {images}, held out {clips.held_out:,}; "
                    f"left out: {clips.too_short:,} too short, {clips.too_small:,} too small",
                    f"  {clips.epochs:,.2f} epochs",
                ]
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def examine(spec: VAESpec, *, without_data: bool = False) -> DryRun:
    """Looks at what the spec reads and what it costs.

    Args:
        spec: the run.
        without_data: whether roots without clips are a warning only.

    Raises:
        UserError: no clips to read, or sizes that don't fit the VAE.
    """
    config = configure(spec.model)
    adversarial = spec.losses.adversarial
    reports = []
    off = why_off(spec.losses.perceptual)
    warnings = [] if off is None else [off]
    for phase in spec.phases:
        _check_sizes(phase, config)
        try:
            clips = noted_clips(spec, phase)
        except UserError as absent:
            if not without_data:
                raise
            warnings.append(f"phase '{phase.name}' can't start: {absent}")
            reports.append(_report(spec, phase, config, None))
        else:
            reports.append(_report(spec, phase, config, _clips_report(clips, phase)))
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
        warnings=tuple(warnings),
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


def _clips_report(clips: pa.Table, phase: Phase) -> ClipsReport:
    found = readable(clips, phase, "train")
    check(found, phase)
    held = readable(clips, phase, "val")
    visits = phase.steps * phase.clips_per_step * (1 - phase.image_share)
    return ClipsReport(
        videos=len(found.videos),
        images=len(found.images),
        too_short=found.too_short,
        too_small=found.too_small,
        held_out=len(held.videos or held.images),
        epochs=visits / len(found.videos) if found.videos else 0.0,
    )


def _report(spec: VAESpec, phase: Phase, config: VAEConfig, clips: ClipsReport | None) -> PhaseReport:
    latents = 1 + (phase.frames - 1) // config.temporal_ratio
    stretch = 1 + (-(-latents // phase.time_split) - 1) * config.temporal_ratio
    precision = Precision.choose(spec.precision, torch.device("cuda" if spec.workers.gpus else "cpu"))
    return PhaseReport(
        name=phase.name,
        steps=phase.steps,
        frames_per_step=phase.clips_per_step * (phase.image_share + (1 - phase.image_share) * phase.frames),
        latent=(latents, phase.height // config.spatial_ratio, phase.width // config.spatial_ratio),
        activation_bytes=phase.clips_at_once * activation_bytes(config, stretch, phase.height, phase.width, precision),
        clips=clips,
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
