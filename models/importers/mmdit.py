"""The published SD3-style MM-DiT: its configuration and keys, in both directions.

Tensor legend: D = width, C = latent channels, P = patch side, M = side of the position table.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rayramid.models.dit.config import DiTConfig
from rayramid.models.errors import UserError
from rayramid.models.importers.layout import Entry, double_block, embedders, own_of, published_of
from rayramid.models.importers.published import expect, required

PYRAMID_CLASS = "PyramidDiffusionMMDiT"
IMAGE_CLASS = "SD3Transformer2DModel"
PATCH = "pos_embed.proj.weight"
TABLE = "pos_embed.pos_embed"
NEW_NORMS = ("q_norm", "k_norm")


def config_from(published: Mapping[str, Any], source: str) -> DiTConfig:
    """Our configuration of a published one; temporal-position flags may be absent, as in the released files.

    Raises:
        UserError: a key is missing, or asks for a variant that no released model has; names `source` and the key.
    """
    expect(published, "pos_embed_type", "sincos", source)
    expect(published, "temp_pos_embed_type", "rope", source)
    expect(published, "add_temp_pos_embed", True, source)
    expect(published, "interp_condition_pos", True, source)
    expect(published, "dual_attention_layers", [], source)
    if published.get("qk_norm") is not None:
        expect(published, "qk_norm", "rms_norm", source)
    heads, head_dim = (
        required(published, "num_attention_heads", source),
        required(published, "attention_head_dim", source),
    )
    expect(published, "caption_projection_dim", heads * head_dim, source)
    patch = required(published, "patch_size", source)
    return DiTConfig(
        latent_channels=required(published, "in_channels", source),
        patch=patch,
        heads=heads,
        head_dim=head_dim,
        double_blocks=required(published, "num_layers", source),
        text_dim=required(published, "joint_attention_dim", source),
        pooled_dim=required(published, "pooled_projection_dim", source),
        rope_axes=(head_dim, 0, 0),
        position_table=required(published, "pos_embed_max_size", source),
        position_base=required(published, "sample_size", source) // patch,
        qk_norm_eps=1e-5,
        conditioning="official",
        causal=published.get("use_temporal_causal", True),
    )


def config_to(config: DiTConfig) -> dict[str, Any]:
    """The published configuration of ours."""
    return {
        "_class_name": PYRAMID_CLASS,
        "sample_size": config.position_base * config.patch,
        "patch_size": config.patch,
        "in_channels": config.latent_channels,
        "num_layers": config.double_blocks,
        "attention_head_dim": config.head_dim,
        "num_attention_heads": config.heads,
        "caption_projection_dim": config.heads * config.head_dim,
        "joint_attention_dim": config.text_dim,
        "pooled_projection_dim": config.pooled_dim,
        "pos_embed_max_size": config.position_table,
        "pos_embed_type": "sincos",
        "temp_pos_embed_type": "rope",
        "add_temp_pos_embed": True,
        "interp_condition_pos": True,
        "qk_norm": "rms_norm",
        "use_t5_mask": True,
        "use_temporal_causal": config.causal,
    }


def from_published(weights: Mapping[str, Tensor], config: DiTConfig, source: str) -> dict[str, Tensor]:
    """Our state dict of published weights whose keys and shapes have been checked.

    Raises:
        UserError: the stored position table is not the one that the configuration computes.
    """
    stored, computed = weights[TABLE].double(), position_table(config).double()
    # Half-precision files hold a rounded table.
    if (stored - computed).abs().max() > max(1e-5, torch.finfo(weights[TABLE].dtype).eps):
        raise UserError(f"{source}: key {TABLE} is not the table of sample_size and pos_embed_max_size in config.json")
    patch_DCPP = weights[PATCH]
    state = own_of(weights, _entries(config))
    state["patch_in.weight"] = patch_DCPP.permute(0, 2, 3, 1).flatten(1)
    return state


def to_published(state: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """The published state dict of ours, the position table in the dtype of the patch projection."""
    weights = published_of(state, _entries(config))
    patch = state["patch_in.weight"]
    weights[PATCH] = patch.unflatten(1, (config.patch, config.patch, config.latent_channels)).permute(0, 3, 1, 2)
    weights[TABLE] = position_table(config).to(device=patch.device, dtype=patch.dtype)
    return weights


def with_new_norms(weights: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """SD3-medium has no q and k norms: the weights it lacks start at one."""
    ones = torch.ones(config.head_dim, dtype=weights[PATCH].dtype)
    lacking = {
        key: ones.clone()
        for entry in _entries(config)
        if entry.own.split(".")[-2] in NEW_NORMS
        for key in entry.published
        if key not in weights
    }
    return {**weights, **lacking}


def position_table(config: DiTConfig) -> Tensor:
    """The additive spatial table [1, M*M, D]: the first half of D encodes the column, the second the row."""
    side, width = config.position_table, config.heads * config.head_dim
    # The published table divides in fp32 and goes on in fp64; equal bits need the same.
    place_M = (torch.arange(side, dtype=torch.float32) / (side / config.position_base)).double()
    frequency = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angle = torch.outer(place_M, frequency)
    axis_MF = torch.cat([angle.sin(), angle.cos()], 1)
    row_column = axis_MF.repeat(side, 1), axis_MF.repeat_interleave(side, 0)
    return torch.cat(row_column, 1).float()[None]


def _entries(config: DiTConfig) -> list[Entry]:
    entries = [Entry("patch_in.bias", ("pos_embed.proj.bias",)), *embedders()]
    for index in range(config.double_blocks):
        last = index == config.double_blocks - 1
        entries += double_block(index, ("norm_add_q", "norm_add_k"), text_goes_on=not last)
    return entries
