"""The spec of VAE training: `kind: vae`."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rayramid.models import storage
from rayramid.models.vae.perceptual import Backbone
from rayramid.pipelines.spec import Thresholds
from rayramid.platform.training.spec.curriculum import Schedule
from rayramid.platform.training.spec.fields import Below1, Count, Location, Positive, Share, Strict, plain_paths
from rayramid.platform.training.spec.optimizer import Optimizer
from rayramid.platform.training.spec.run import RunSpec, Validation

Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


def _size(value: str) -> str:
    if re.fullmatch(r"[1-9]\d*x[1-9]\d*", value) is None:
        raise ValueError(f"{value!r}: a size is WIDTHxHEIGHT, as 256x256")
    return value


class Architecture(Strict):
    """What is trained: a preset with random weights, or a VAE to go on from. Exactly one of the two is given.

    Every other field replaces what the preset says (not what `start` says), and is left out otherwise.

    Attributes:
        preset: `published`, `medium` or `small`.
        start: path or URL of a VAE folder, a model folder or the output of a finished run; starts from its weights.
        encoder_channels: channels of each encoder block.
        encoder_layers: residual layers of each encoder block.
        spatial_down: whether the block halves height and width.
        temporal_down: whether the block halves time.
        decoder_channels: channels of each decoder block.
        decoder_layers: residual layers of each decoder block.
        spatial_up: whether the block doubles height and width.
        temporal_up: whether the block doubles time.
        latent_channels: channels of a latent.
        norm_groups: groups of every GroupNorm.
        stem_patch: pixels are folded into channels in squares of this side before the first convolution.
        shortcuts: mean pooling past every down convolution and repetition past every up convolution.
        patch_skip: a linear codec of whole patches in parallel with the network, fitted to some clips at the start.
    """

    preset: str | None = None
    start: Location | None = None
    encoder_channels: tuple[Positive, ...] | None = None
    encoder_layers: tuple[Positive, ...] | None = None
    spatial_down: tuple[bool, ...] | None = None
    temporal_down: tuple[bool, ...] | None = None
    decoder_channels: tuple[Positive, ...] | None = None
    decoder_layers: tuple[Positive, ...] | None = None
    spatial_up: tuple[bool, ...] | None = None
    temporal_up: tuple[bool, ...] | None = None
    latent_channels: Positive | None = None
    norm_groups: Positive | None = None
    stem_patch: Positive | None = None
    shortcuts: bool | None = None
    patch_skip: bool | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Architecture":
        changes = self.model_dump(exclude={"preset", "start"}, exclude_none=True)
        if (self.preset is None) == (self.start is None):
            raise ValueError("give either preset (random weights) or start (a VAE to go on from)")
        if self.start is not None and changes:
            raise ValueError(f"{next(iter(changes))} can't change the VAE at start; begin from a preset")
        return self


class ClipSource(Strict):
    """Clips of a dataset's root, cut by the job `shots`.

    Attributes:
        root: the dataset's folder or URL.
        keep: thresholds on the clips' scores and codecs, as in the data spec; without any, no scores are needed.
    """

    root: Location
    keep: Thresholds = Thresholds()


class Phase(Strict):
    """One stretch of the curriculum.

    Attributes:
        name: shown in the metrics.
        data: where clips and images come from; a plain path is a root without thresholds.
        steps: optimiser steps.
        learning_rate: the peak.
        schedule: how the learning rate moves over the phase.
        size: pixels of a training crop, WIDTHxHEIGHT.
        short_side: frames are scaled so that their shorter side has so many pixels before the crop; None makes them
            just cover the crop.
        max_upscale: clips that would be enlarged more are left out.
        frames: frames of a training clip, 1 + 8n; at least 17, or every eighth frame of longer videos suffers.
        fps: frames per second; None takes every frame of the file.
        clips_per_step: clips and images in one optimiser step, over all workers.
        clips_at_once: how many of its clips a worker computes together, as memory allows; changes no result.
        image_share: the share of them that are images; single frames of videos where the data has no images.
        time_split: so many workers share a clip, each with its own stretch of time; all, where there are fewer.
    """

    name: str
    data: Annotated[
        tuple[ClipSource, ...],
        Field(min_length=1),
        BeforeValidator(plain_paths, json_schema_input_type=str | list[str | ClipSource]),
    ]
    steps: Positive
    learning_rate: Rate = 1e-4
    schedule: Schedule = Schedule()
    size: Annotated[str, AfterValidator(_size)] = "256x256"
    short_side: Positive | None = None
    max_upscale: Rate = 1.1
    frames: Positive = 17
    fps: Rate | None = 24.0
    clips_per_step: Positive = 8
    clips_at_once: Positive = 1
    image_share: Share = 0.1
    time_split: Positive = 1

    @property
    def width(self) -> int:
        """Pixels of a crop."""
        return int(self.size.split("x")[0])

    @property
    def height(self) -> int:
        """Pixels of a crop."""
        return int(self.size.split("x")[1])

    @model_validator(mode="after")
    def _crop_fits(self) -> "Phase":
        if self.short_side is not None and self.short_side < min(self.width, self.height):
            raise ValueError(f"short_side {self.short_side} is less than the crop {self.size} needs")
        return self


class Reconstruction(Strict):
    """The error of the decoded frames in [-1, 1].

    Attributes:
        kind: `l1` or `l2`, the mean over all values.
        weight: of the term.
    """

    kind: Literal["l1", "l2"] = "l2"
    weight: Weight = 10.0


class PerceptualLoss(Strict):
    """LPIPS. Without the backbone's weights the term is left out, with a warning.

    Attributes:
        weight: of the term; 0 leaves it out.
        folder: holds torchvision's weights of the backbone, as `vgg16-397923af.pth`.
        backbone: `vgg` or `alex`.
    """

    weight: Weight = 1.0
    folder: Location | None = None
    backbone: Backbone = "vgg"


class Adversarial(Strict):
    """The discriminator and its part in the loss (hinge, adaptive weight).

    Attributes:
        weight: of the term, beside the adaptive weight; 0 leaves it out.
        start: optimiser steps before the discriminator begins to learn and to count.
        kind: `frame` scores patches of single frames, `video` patches of frames with their past.
        channels: of the discriminator's first layer.
        layers: of its layers, how many halve height and width.
        learning_rate: a multiple of the phase's learning rate.
        betas: of its AdamW.
    """

    weight: Weight = 0.0
    start: Count = 0
    kind: Literal["frame", "video"] = "frame"
    channels: Positive = 64
    layers: Positive = 3
    learning_rate: Rate = 1.0
    betas: tuple[Below1, Below1] = (0.5, 0.9)


class Losses(Strict):
    """The terms of the loss.

    Attributes:
        reconstruction: the error in pixels.
        perceptual: LPIPS.
        kl: weight of the posterior's divergence from N(0, 1), mean over the latents' values.
        adversarial: the discriminator.
    """

    reconstruction: Reconstruction = Reconstruction()
    perceptual: PerceptualLoss = PerceptualLoss()
    kl: Weight = 1e-6
    adversarial: Adversarial = Adversarial()


class Held(Validation):
    """PSNR, SSIM and LPIPS of the EMA weights on held-out clips.

    Attributes:
        clips: how many clips of the split `val` are used, the first in the order of their ids.
        frames: frames of each, as far as it has them; as many as in training when None.
    """

    clips: Positive = 16
    frames: Positive | None = None


class Statistics(Strict):
    """The measurement of the latents' shift and scale when training is done.

    Attributes:
        clips: how many training clips, and how many images, are encoded for it.
    """

    clips: Positive = 256


class Decoding(Strict):
    """How frames are read.

    Attributes:
        readers: decoding processes of each worker.
        deadline_s: a file that gives no frames for so long counts as broken.
    """

    readers: Positive = 2
    deadline_s: Rate = 30.0


class VAESpec(RunSpec):
    """A training run of a VAE.

    Attributes:
        model: what is trained.
        phases: the curriculum.
        losses: what it is trained for.
        damaged_clips: what a file without its frames does: `stop` names it and ends the run; `skip` reads another clip
            in its place, and names and counts such files in the metrics.
        optimizer: how gradients become updates; `muon` takes the kernels of all hidden convolutions.
        validation: the measurement on held-out clips.
        statistics: the measurement of the latents at the end.
        decode: how frames are read.
    """

    kind: Literal["vae"]
    model: Architecture
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    losses: Losses = Losses()
    damaged_clips: Literal["stop", "skip"] = "stop"
    optimizer: Optimizer = Optimizer()
    validation: Held = Held()
    statistics: Statistics = Statistics()
    decode: Decoding = Decoding()

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def places(self) -> dict[str, str]:
        """Where everything of the run is, by what it is."""
        return {"VAE": storage.join(self.output, "vae"), **super().places}

    @model_validator(mode="after")
    def _names_differ(self) -> "VAESpec":
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"two phases have one name: {', '.join(names)}")
        return self
