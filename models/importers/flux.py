"""The published miniFLUX: its configuration and keys, in both directions."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from rayramid.models.dit.config import DiTConfig
from rayramid.models.importers.layout import Entry, double_block, embedders, linear, own_of, published_of, single_block
from rayramid.models.importers.published import expect, required, required_list

PYRAMID_CLASS = "PyramidFluxTransformer"

# Its configuration says patch_size 1: the pipeline folds 2x2 patches into `in_channels` before the model.
PATCH = 2


def config_from(published: Mapping[str, Any], source: str) -> DiTConfig:
    """Our configuration of a published one.

    Raises:
        UserError: a key is missing, or asks for a variant that no released model has; names `source` and the key.
    """
    expect(published, "patch_size", 1, source)
    expect(published, "interp_condition_pos", True, source)
    expect(published, "guidance_embeds", False, source)
    return DiTConfig(
        latent_channels=required(published, "in_channels", source) // PATCH**2,
        patch=PATCH,
        heads=required(published, "num_attention_heads", source),
        head_dim=required(published, "attention_head_dim", source),
        double_blocks=required(published, "num_layers", source),
        single_blocks=required(published, "num_single_layers", source),
        text_dim=required(published, "joint_attention_dim", source),
        pooled_dim=required(published, "pooled_projection_dim", source),
        rope_axes=cast("tuple[int, int, int]", required_list(published, "axes_dims_rope", int, source)),
        qk_norm_eps=1e-6,
        conditioning="official",
        causal=published.get("use_temporal_causal", True),
    )


def config_to(config: DiTConfig) -> dict[str, Any]:
    """The published configuration of ours."""
    return {
        "_class_name": PYRAMID_CLASS,
        "patch_size": 1,
        "in_channels": config.latent_channels * PATCH**2,
        "num_layers": config.double_blocks,
        "num_single_layers": config.single_blocks,
        "attention_head_dim": config.head_dim,
        "num_attention_heads": config.heads,
        "joint_attention_dim": config.text_dim,
        "pooled_projection_dim": config.pooled_dim,
        "axes_dims_rope": list(config.rope_axes),
        "interp_condition_pos": True,
        "use_temporal_causal": config.causal,
    }


def from_published(weights: Mapping[str, Tensor], config: DiTConfig, source: str) -> dict[str, Tensor]:
    """Our state dict of published weights whose keys and shapes have been checked."""
    return own_of(weights, _entries(config))


def to_published(state: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """The published state dict of ours."""
    return published_of(state, _entries(config))


def _entries(config: DiTConfig) -> list[Entry]:
    entries = [*linear("patch_in", "x_embedder"), *embedders()]
    for index in range(config.double_blocks):
        entries += double_block(index, ("norm_added_q", "norm_added_k"), text_goes_on=True)
    for index in range(config.single_blocks):
        entries += single_block(index)
    return entries
