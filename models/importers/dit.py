"""A DiT from published weights and back, whichever of the published architectures it is."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.importers import flux, mmdit
from rayramid.models.importers.published import CONFIG
from rayramid.models.weights import adopt, check_keys, shapes


class Architecture(Protocol):
    """What the modules `mmdit` and `flux` offer."""

    def config_from(self, published: Mapping[str, Any], source: str) -> DiTConfig:
        """Our configuration of a published one."""

    def config_to(self, config: DiTConfig) -> dict[str, Any]:
        """The published configuration of ours."""

    def from_published(self, weights: Mapping[str, Tensor], config: DiTConfig, source: str) -> dict[str, Tensor]:
        """Our state dict of published weights."""

    def to_published(self, state: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
        """The published state dict of ours."""


ARCHITECTURES: dict[str, Architecture] = {
    mmdit.PYRAMID_CLASS: mmdit,
    mmdit.IMAGE_CLASS: mmdit,
    flux.PYRAMID_CLASS: flux,
}


def class_of(published: Mapping[str, Any], source: str) -> str:
    """The published class that a configuration belongs to; UserError names `source` when it is none of ours.

    Files without a class name are told apart by the key that only one architecture has.
    """
    name = published.get("_class_name")
    if name is None and "axes_dims_rope" in published:
        return flux.PYRAMID_CLASS
    if name is None and "pos_embed_max_size" in published:
        return mmdit.PYRAMID_CLASS
    if name not in ARCHITECTURES:
        raise UserError(f"{source}: _class_name {name!r} is not a known DiT; known are {', '.join(ARCHITECTURES)}")
    return str(name)


def config_from_published(
    published: Mapping[str, Any], config_source: str = CONFIG, *, levels: int = 3, frames_per_unit: int | None = 1
) -> DiTConfig:
    """Our configuration (`conditioning: official`) of a published one; arguments and errors as `dit_from_published`."""
    architecture = ARCHITECTURES[class_of(published, config_source)]
    try:
        return dataclasses.replace(
            architecture.config_from(published, config_source), levels=levels, frames_per_unit=frames_per_unit
        )
    except UserError:
        raise
    # What DiTConfig can't be.
    except ValueError as wrong:
        raise UserError(f"{config_source}: {wrong}") from wrong


def dit_from_published(
    published: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    source: str,
    *,
    config_source: str = CONFIG,
    levels: int = 3,
    frames_per_unit: int | None = 1,
) -> DiT:
    """A DiT that computes what the published model does (`conditioning: official`), in the dtypes stored.

    SD3-medium's transformer, an image model without q and k norms, gets them at one.

    Args:
        published: its configuration.
        weights: its state dict.
        source: the file of the weights, for errors.
        config_source: the file of the configuration, for errors.
        levels: stages it was trained with; published files don't say.
        frames_per_unit: latents per autoregressive unit, likewise.

    Raises:
        UserError: an unknown architecture or variant; a key missing, surplus or of a wrong shape.
    """
    name = class_of(published, config_source)
    config = config_from_published(published, config_source, levels=levels, frames_per_unit=frames_per_unit)
    if name == mmdit.IMAGE_CLASS and published.get("qk_norm") is None:
        weights = mmdit.with_new_norms(weights, config)
    check_keys(shapes(weights), published_shapes(config), source)
    with torch.device("meta"):
        dit = DiT(config)
    adopt(dit, ARCHITECTURES[name].from_published(weights, config, source), source)
    return dit.eval()


def dit_to_published(dit: DiT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Published configuration and state dict of a DiT; bit-exact.

    Raises:
        UserError: the published code can't run it, for its conditioning or its layout.
    """
    architecture = architecture_of(dit.config)
    return architecture.config_to(dit.config), architecture.to_published(dit.state_dict(), dit.config)


def architecture_of(config: DiTConfig) -> Architecture:
    """The published architecture with the layout of `config`; UserError when there is none."""
    if config.conditioning != "official":
        raise UserError(
            f"conditioning is {config.conditioning}: the published code only runs official; export from such a model"
        )
    if config.shared_parts:
        raise UserError(
            f"shared_parts are {', '.join(config.shared_parts)}: the published code has none of them; export from a "
            "model without"
        )
    if config.mlp_ratio == 4 and config.single_blocks == 0 and config.rope_axes == (config.head_dim, 0, 0):
        return mmdit
    if config.mlp_ratio == 4 and config.single_blocks > 0 and config.position_table == 0 and config.patch == flux.PATCH:
        return flux
    raise UserError("no published architecture has this layout of blocks and positions; it can't be exported")


def published_shapes(config: DiTConfig) -> dict[str, torch.Size]:
    """Keys and shapes of the published state dict of `config`; allocates nothing."""
    with torch.device("meta"):
        state = DiT(config).state_dict()
    return shapes(architecture_of(config).to_published(state, config))


def initial_weights(dit: DiT, config: DiTConfig) -> DiT:
    """A model of `config` that starts from the weights of another, as the paper starts from SD3-medium.

    The published models predict start - end, shared context end - start (Eq. 11): from one to the other, the output
    layer changes its sign. Role embeddings that the other has not start at zero. A smaller patch is embedded as if its
    neighbours inside the other model's patch were its copies, and gets the mean of what the other predicts for them.

    Args:
        dit: the other model; its tensors become those of the new one where they are the same.
        config: same blocks and widths; of an `official` model, conditioning, levels and units may become others, and
            `shared_parts` may be added; the patch may be one that divides the model's.

    Raises:
        UserError: the two differ in a parameter's shape.
    """
    state = dit.state_dict()
    if dit.config.patch != config.patch and dit.config.patch % config.patch == 0:
        state |= _finer(state, dit.config.patch, config.patch)
    with torch.device("meta"):
        started = DiT(config)
    if dit.config.conditioning != config.conditioning:
        assert dit.config.conditioning == "official", "shared context was never told a target's time"
        state |= {key: -state[key] for key in ("head.out.weight", "head.out.bias")}
    added = {key: shape for key, shape in shapes(started.state_dict()).items() if key.startswith("role_")}
    state = {key: state["head.out.bias"].new_zeros(shape) for key, shape in added.items()} | state
    adopt(started, state, "initial weights")
    return started


def _finer(state: Mapping[str, Tensor], patch: int, finer: int) -> dict[str, Tensor]:
    """The weights that a patch's side is part of; the channels of a patch are row by row, the latent's fastest."""

    def parts(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (patch // finer, finer, patch // finer, finer, -1))

    embedding = parts(state["patch_in.weight"].T).sum((0, 2)).flatten(0, 2).T
    head = {key: parts(state[key]).mean((0, 2)).flatten(0, 2) for key in ("head.out.weight", "head.out.bias")}
    return {"patch_in.weight": embedding.contiguous(), **head}
