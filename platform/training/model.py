"""The model of a run, from what the spec says."""

from dataclasses import asdict, replace

import torch

from rayramid.models.card import ModelCard, load_card
from rayramid.models.checkpoint import dit_config_of, load_dit, pyramid_of
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.presets import preset
from rayramid.models.pyramid import Pyramid
from rayramid.platform.training.spec import Model


def configure(model: Model) -> tuple[DiTConfig, Pyramid, ModelCard | None]:
    """The DiT's configuration, its spatial pyramid, and the card of the model to start from, if there is one.

    Raises:
        UserError: an unknown preset, no model at `start`, or fields that don't fit together.
    """
    card = load_card(model.start) if model.start is not None else None
    if card is not None:
        config, pyramid = dit_config_of(card), pyramid_of(card)
    else:
        assert model.preset is not None, "the spec has one of the two"
        config = preset(model.preset)
        pyramid = Pyramid(levels=config.levels)
    names = ("conditioning", "levels", "frames_per_unit", "history_units", "causal")
    changes = {name: value for name in names if (value := getattr(model, name)) is not None}
    if changes.get("frames_per_unit") == "all":
        changes["frames_per_unit"] = None
    try:
        config = replace(config, **changes)
        if model.gamma is not None:
            pyramid = replace(pyramid, gamma=model.gamma)
        if model.stage_range is not None or config.levels != pyramid.levels:
            pyramid = replace(pyramid, levels=config.levels, stage_range=model.stage_range)
    except ValueError as wrong:
        raise UserError(f"model: {wrong}") from None
    return config, pyramid, card


def build(model: Model, seed: int, dtype: torch.dtype) -> tuple[DiT, Pyramid]:
    """The DiT on the CPU, with the weights that the run starts from; the same on every rank.

    Raises:
        UserError: as `configure`; or the weights to start from don't fit the configuration.
    """
    config, pyramid, card = configure(model)
    torch.manual_seed(seed)
    if card is None:
        return DiT(config).to(dtype), pyramid
    assert model.start is not None, "its card was read"
    return load_dit(model.start, replace(card, dit=asdict(config)), dtype=dtype).train(), pyramid
