"""Shift and scale of a VAE's latents: of images and first latents, and of all later ones apart."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from rayramid.models.vae.config import VAEConfig


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of many values; sums of several parts add up."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Tensor) -> "Moments":
        """Of all values of a tensor, summed in float64."""
        exact = values.double()
        return cls(values.numel(), float(exact.sum()), float(exact.square().sum()))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def shift(self) -> float:
        """The mean."""
        return self.total / self.count

    @property
    def scale(self) -> float:
        """1 / standard deviation."""
        return (self.squares / self.count - self.shift**2) ** -0.5


@dataclass(frozen=True)
class LatentStatistics:
    """Moments of raw latents.

    Attributes:
        first: of images and of the first latent of every video.
        later: of all others.
    """

    first: Moments = Moments()
    later: Moments = Moments()

    @classmethod
    def of(cls, latents: Iterable[Tensor]) -> "LatentStatistics":
        """Of whole videos' raw latents, [C, T, H, W] each."""
        found = cls()
        for latent_CTHW in latents:
            found += cls(Moments.of(latent_CTHW[:, :1]), Moments.of(latent_CTHW[:, 1:]))
        return found

    def __add__(self, other: "LatentStatistics") -> "LatentStatistics":
        return LatentStatistics(self.first + other.first, self.later + other.later)

    def written_to(self, config: VAEConfig) -> VAEConfig:
        """The configuration with these statistics; a pair of which nothing was seen stays as it is."""
        if self.first.count:
            config = replace(config, image_shift=self.first.shift, image_scale=self.first.scale)
        if self.later.count:
            config = replace(config, video_shift=self.later.shift, video_scale=self.later.scale)
        return config
