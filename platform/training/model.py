"""The model of a run, from what the spec says."""

from dataclasses import replace

import torch

from rayramid.models.card import ModelCard
from rayramid.models.checkpoint import dit_config_of, pyramid_of
from rayramid.models.dit.config import SHARED_PARTS, DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.importers.dit import initial_weights
from rayramid.models.presets import preset
from rayramid.models.pyramid import Pyramid
from rayramid.platform.training.data import Origin
from rayramid.platform.training.spec.model import Model
from rayramid.platform.training.start import open_start, vae_fingerprint


def configure(model: Model) -> tuple[DiTConfig, Pyramid, ModelCard | None]:
    """The DiT's configuration, its spatial pyramid, and the card of the model to start from, if there is one.

    Raises:
        UserError: an unknown preset, no model at `start`, or fields that don't fit together.
    """
    card = open_start(model.start, model.variant).card() if model.start is not None else None
    if card is not None:
        config, pyramid = dit_config_of(card), pyramid_of(card)
    else:
        assert model.preset is not None, "the spec has one of the two"
        config = preset(model.preset)
        pyramid = Pyramid(levels=config.levels)
    names = ("patch", "conditioning", "shared_parts", "levels", "frames_per_unit", "history_units", "causal")
    changes = {name: value for name in names if (value := getattr(model, name)) is not None}
    if changes.get("frames_per_unit") == "all":
        changes["frames_per_unit"] = None
    try:
        started, config = config, replace(config, **changes)
        if card is not None:
            _check_start(started, config)
        if config.conditioning != started.conditioning:
            # The published tables belong to the published conditioning.
            pyramid = replace(pyramid, schedule="uniform")
        if model.gamma is not None:
            pyramid = replace(pyramid, gamma=model.gamma)
        if model.renoise is not None:
            pyramid = replace(pyramid, renoise=model.renoise)
        if model.stage_range is not None or config.levels != pyramid.levels:
            pyramid = replace(pyramid, levels=config.levels, stage_range=model.stage_range)
    except ValueError as wrong:
        raise UserError(f"model: {wrong}") from None
    return config, pyramid, card


def _check_start(started: DiTConfig, config: DiTConfig) -> None:
    if started.patch % config.patch:
        raise UserError(f"model: a model with patch {started.patch} can go on with a divisor of it, not {config.patch}")
    if started.conditioning == "shared_context" and config.conditioning == "official":
        raise UserError("model: a shared_context model can't go on as official; start from an official one")
    lost = [part for part in SHARED_PARTS if started.shares(part) and not config.shares(part)]
    if lost:
        raise UserError(f"model: a model trained with shared_parts {', '.join(lost)} keeps them")
    if started.shares("roles") and config.levels != started.levels:
        raise UserError(f"model: a model that has roles and was trained with {started.levels} levels keeps them")


def origin_of(model: Model) -> Origin | None:
    """What made the latents and texts that the model to start from knows, if there is one."""
    if model.start is None:
        return None
    start = open_start(model.start, model.variant)
    return Origin(model.start, vae_fingerprint(start), start.card().text_fingerprint)


def build(model: Model, seed: int, dtype: torch.dtype) -> tuple[DiT, Pyramid]:
    """The DiT on the CPU, with the weights that the run starts from; the same on every rank.

    Raises:
        UserError: as `configure`; or the weights to start from don't fit the configuration.
    """
    config, pyramid, _ = configure(model)
    torch.manual_seed(seed)
    if model.start is None:
        return DiT(config).to(dtype), pyramid
    return initial_weights(open_start(model.start, model.variant).dit(), config).to(dtype).train(), pyramid
