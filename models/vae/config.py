"""The architecture of a causal video VAE, and the statistics of its latents."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from torch import Tensor

from rayramid.models.errors import UserError


@dataclass(frozen=True)
class VAEConfig:
    """One causal 3D VAE; the defaults are the published architecture.

    Encoder fields run from pixels to latents, decoder fields from latents to pixels. Block `i` of the encoder has
    `encoder_layers[i]` residual layers of `encoder_channels[i]` channels, then halves space and/or time.

    Args:
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
        patch_skip: a linear codec of whole patches in parallel with the network.
        image_shift: mean of the raw latents of images and of first frames.
        image_scale: 1 / standard deviation of the same.
        video_shift: mean of all other raw latents.
        video_scale: 1 / standard deviation of the same.
    """

    encoder_channels: tuple[int, ...] = (128, 256, 512, 512)
    encoder_layers: tuple[int, ...] = (2, 2, 2, 2)
    spatial_down: tuple[bool, ...] = (True, True, True, False)
    temporal_down: tuple[bool, ...] = (True, True, True, False)
    decoder_channels: tuple[int, ...] = (512, 512, 256, 128)
    decoder_layers: tuple[int, ...] = (3, 3, 3, 3)
    spatial_up: tuple[bool, ...] = (True, True, True, False)
    temporal_up: tuple[bool, ...] = (True, True, True, False)
    latent_channels: int = 16
    norm_groups: int = 32
    stem_patch: int = 1
    shortcuts: bool = False
    patch_skip: bool = False
    image_shift: float = 0.0
    image_scale: float = 1.0
    video_shift: float = 0.0
    video_scale: float = 1.0

    def __post_init__(self) -> None:
        encoder = ("encoder_channels", "encoder_layers", "spatial_down", "temporal_down")
        decoder = ("decoder_channels", "decoder_layers", "spatial_up", "temporal_up")
        for fields in (encoder, decoder):
            blocks = len(getattr(self, fields[0]))
            for field in fields:
                # JSON has lists where we have tuples.
                object.__setattr__(self, field, tuple(getattr(self, field)))
                if len(getattr(self, field)) != blocks:
                    raise UserError(f"VAE: {field} must have {blocks} entries, as {fields[0]}: {getattr(self, field)}")
        for width in (*self.encoder_channels, *self.decoder_channels):
            if width < 1 or self.norm_groups < 1 or width % self.norm_groups:
                raise UserError(f"VAE: norm_groups {self.norm_groups} must divide the channels of every block: {width}")
        if sum(self.spatial_down) != sum(self.spatial_up) or sum(self.temporal_down) != sum(self.temporal_up):
            raise UserError("VAE: the decoder must enlarge as often as the encoder reduces")

    @property
    def spatial_ratio(self) -> int:
        """Pixels per latent, along height and width."""
        return self.stem_patch * 2 ** sum(self.spatial_down)

    @property
    def temporal_ratio(self) -> int:
        """Frames per latent, after the first."""
        return 2 ** sum(self.temporal_down)

    def normalise(self, z_CTHW: Tensor, first: bool = True) -> Tensor:
        """Raw latents [..., C, T, H, W] minus shift, times scale.

        Args:
            z_CTHW: raw latents.
            first: whether the first of them is the first of its video (or an image).
        """
        shift_T11, scale_T11 = self._statistics(z_CTHW, first)
        return (z_CTHW - shift_T11) * scale_T11

    def denormalise(self, z_CTHW: Tensor, first: bool = True) -> Tensor:
        """Normalised latents [..., C, T, H, W] to raw ones; the inverse of `normalise`."""
        shift_T11, scale_T11 = self._statistics(z_CTHW, first)
        return z_CTHW / scale_T11 + shift_T11

    def _statistics(self, z_CTHW: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        later = z_CTHW.shape[-3] - first
        shift = [self.image_shift] * first + [self.video_shift] * later
        scale = [self.image_scale] * first + [self.video_scale] * later
        return z_CTHW.new_tensor(shift).view(-1, 1, 1), z_CTHW.new_tensor(scale).view(-1, 1, 1)


SMALL = VAEConfig(
    encoder_channels=(16, 32, 32),
    encoder_layers=(1, 1, 1),
    spatial_down=(True, False, False),
    temporal_down=(True, True, True),
    decoder_channels=(32, 32, 16),
    decoder_layers=(1, 1, 1),
    spatial_up=(False, False, True),
    temporal_up=(True, True, True),
    norm_groups=8,
    stem_patch=4,
    shortcuts=True,
    patch_skip=True,
)
"""A VAE for CPUs, 8x8x8 with 16 channels as the published one; usable once `pca.fit_pca` has seen some clips."""

MEDIUM = replace(
    SMALL,
    encoder_channels=(48, 48, 48),
    decoder_channels=(48, 48, 48),
)
"""The same, wider: what a CPU trains in an hour."""

PRESETS: Mapping[str, VAEConfig] = {"published": VAEConfig(), "medium": MEDIUM, "small": SMALL}


def preset(name: str) -> VAEConfig:
    """The configuration called `name`; UserError with the nearest name when there is none."""
    if name not in PRESETS:
        nearest = get_close_matches(name, PRESETS, n=1)
        hint = f", did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(PRESETS)}"
        raise UserError(f"no VAE preset {name}{hint}")
    return PRESETS[name]
