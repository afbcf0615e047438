"""Whether sampled latents are distributed as those that were trained on.

Shape letters: C channels, T latents, H and W latent sides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Channels:
    """Mean and standard deviation of each channel [C]."""

    mean_C: Tensor
    std_C: Tensor

    @classmethod
    def of(cls, latents: Iterable[Tensor]) -> "Channels":
        """Those of latents [C, T, H, W] together, each of which counts alike."""
        means, squares = zip(*(_moments(latent_CTHW) for latent_CTHW in latents), strict=True)
        mean_C = torch.stack(means).mean(0)
        return cls(mean_C, (torch.stack(squares).mean(0) - mean_C**2).clamp(min=0).sqrt())


@dataclass(frozen=True)
class Reference:
    """What latents of data have: the first of a video (and an image), and later ones."""

    first: Channels
    later: Channels | None

    @classmethod
    def of(cls, latents: Sequence[Tensor]) -> "Reference":
        """Those of normalised latents [C, T, H, W], of which there is one at least."""
        later = [latent_CTHW[:, 1:] for latent_CTHW in latents if latent_CTHW.shape[1] > 1]
        return cls(Channels.of(latent_CTHW[:, :1] for latent_CTHW in latents), Channels.of(later) if later else None)


def latent_curves(units: Sequence[Tensor], reference: Reference) -> dict[str, list[float]]:
    """How far the latents [C, t, H, W] of each unit are from data, over all channels.

    latent_shift: root mean square of the difference of the means, in standard deviations of the data. latent_spread:
    root mean square of the ratio of the standard deviations. Data have about 0 and 1.
    """
    found: dict[str, list[float]] = {"latent_shift": [], "latent_spread": []}
    for number, unit_CTHW in enumerate(units):
        # A model that makes the whole video at once has one unit, and mostly later latents in it.
        is_first = number == 0 and unit_CTHW.shape[1] == 1
        data = reference.first if is_first else reference.later or reference.first
        made = Channels.of([unit_CTHW])
        scale_C = data.std_C.clamp(min=1e-6)
        found["latent_shift"].append(_rms((made.mean_C - data.mean_C) / scale_C))
        found["latent_spread"].append(_rms(made.std_C / scale_C))
    return found


def _moments(latent_CTHW: Tensor) -> tuple[Tensor, Tensor]:
    flat = latent_CTHW.double().flatten(1)
    return flat.mean(1), (flat**2).mean(1)


def _rms(values_C: Tensor) -> float:
    return float((values_C**2).mean().sqrt())
