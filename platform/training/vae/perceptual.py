"""LPIPS for a run, or one line that says why there is none."""

import logging

from rayramid.models.vae.perceptual import Perceptual, missing
from rayramid.platform.training.vae.spec import PerceptualLoss

log = logging.getLogger(__name__)


def why_off(settings: PerceptualLoss) -> str | None:
    """What a user should know of a perceptual term that is asked for and can't be had; None where all is well."""
    reason = missing(settings.folder, settings.backbone) if settings.weight else None
    return None if reason is None else f"training goes on without its perceptual term (LPIPS): {reason}"


def perceptual_of(settings: PerceptualLoss) -> Perceptual | None:
    """The perceptual term; None where the spec has none or it can't be had."""
    if not settings.weight or why_off(settings) is not None:
        return None
    assert settings.folder is not None
    return Perceptual(settings.folder, settings.backbone)
