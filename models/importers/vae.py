"""The published causal VAE: its configuration and keys to ours and back. Tensors keep their values and shapes."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from rayramid.models.errors import UserError
from rayramid.models.importers.published import expect, required, required_list
from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.io import parse_config
from rayramid.models.vae.model import CausalVAE
from rayramid.models.weights import check_keys, shapes

# The published code keeps the statistics of the latents beside each kind of DiT, not in the VAE's files.
IMAGE_STATISTICS = {"mmdit": (0.1490, 1 / 1.8415), "flux": (-0.04, 1 / 1.8726)}
VIDEO_STATISTICS = (-0.2343, 1 / 3.0986)

# Our part of a key, the published one; tried in this order on every key.
NAMES = (
    ("encoder.moments.", "quant_conv.conv."),
    ("decoder.latents.", "post_quant_conv.conv."),
    ("encoder.norm.", "encoder.conv_norm_out."),
    ("decoder.norm.", "decoder.conv_norm_out."),
    (".stem.", ".conv_in.conv."),
    (".out.", ".conv_out.conv."),
    ("encoder.blocks.", "encoder.down_blocks."),
    ("decoder.blocks.", "decoder.up_blocks."),
    (".middle.before.", ".mid_block.resnets.0."),
    (".middle.after.", ".mid_block.resnets.1."),
    (".middle.attention.norm.", ".mid_block.attentions.0.group_norm."),
    (".middle.attention.to_out.", ".mid_block.attentions.0.to_out.0."),
    (".middle.attention.", ".mid_block.attentions.0."),
    (".layers.", ".resnets."),
    (".conv1.", ".conv1.conv."),
    (".conv2.", ".conv2.conv."),
    (".skip.", ".conv_shortcut.conv."),
)
SAMPLERS = {
    "encoder": ((".space.conv.", ".downsamplers.0.conv.conv."), (".time.conv.", ".temporal_downsamplers.0.conv.conv.")),
    "decoder": ((".space.conv.", ".upsamplers.0.conv.conv."), (".time.conv.", ".temporal_upsamplers.0.conv.conv.")),
}


def config_from(
    published: Mapping[str, Any], statistics: Literal["mmdit", "flux"] = "mmdit", source: str = "config.json"
) -> VAEConfig:
    """Our configuration from a published `config.json`.

    Args:
        published: the parsed file.
        statistics: whose shift and scale of first frames to store; those of later frames are common.
        source: the file's name, for errors.

    Raises:
        UserError: a key is missing, or asks for something that was never published.
    """
    for key, only in (("encoder_act_fn", "silu"), ("decoder_act_fn", "silu"), ("interpolate", False)):
        expect(published, key, only, source)
    image_shift, image_scale = IMAGE_STATISTICS[statistics]
    fields = {
        "encoder_channels": required_list(published, "encoder_block_out_channels", int, source),
        "encoder_layers": required_list(published, "encoder_layers_per_block", int, source),
        "spatial_down": required_list(published, "encoder_spatial_down_sample", bool, source),
        "temporal_down": required_list(published, "encoder_temporal_down_sample", bool, source),
        "decoder_channels": required_list(published, "decoder_block_out_channels", int, source)[::-1],
        "decoder_layers": required_list(published, "decoder_layers_per_block", int, source),
        "spatial_up": required_list(published, "decoder_spatial_up_sample", bool, source),
        "temporal_up": required_list(published, "decoder_temporal_up_sample", bool, source),
        "latent_channels": required(published, "encoder_out_channels", source),
        "norm_groups": required(published, "encoder_norm_num_groups", source),
        "image_shift": image_shift,
        "image_scale": image_scale,
        "video_shift": VIDEO_STATISTICS[0],
        "video_scale": VIDEO_STATISTICS[1],
    }
    return parse_config(fields, source)


def config_to(config: VAEConfig) -> dict[str, Any]:
    """The published `config.json` of our configuration; UserError if it has parts that were never published."""
    if config.patch_skip or config.shortcuts or config.stem_patch != 1:
        raise UserError("a VAE with patch_skip, shortcuts or stem_patch has no published form")
    blocks = len(config.encoder_channels), len(config.decoder_channels)
    return {
        "_class_name": "CausalVideoVAE",
        "encoder_in_channels": 3,
        "encoder_out_channels": config.latent_channels,
        "encoder_layers_per_block": list(config.encoder_layers),
        "encoder_down_block_types": ["DownEncoderBlockCausal3D"] * blocks[0],
        "encoder_block_out_channels": list(config.encoder_channels),
        "encoder_spatial_down_sample": list(config.spatial_down),
        "encoder_temporal_down_sample": list(config.temporal_down),
        "encoder_block_dropout": [0.0] * blocks[0],
        "encoder_act_fn": "silu",
        "encoder_norm_num_groups": config.norm_groups,
        "encoder_double_z": True,
        "encoder_type": "causal_vae_conv",
        "decoder_in_channels": config.latent_channels,
        "decoder_out_channels": 3,
        "decoder_layers_per_block": list(config.decoder_layers),
        "decoder_up_block_types": ["UpDecoderBlockCausal3D"] * blocks[1],
        "decoder_block_out_channels": list(reversed(config.decoder_channels)),
        "decoder_spatial_up_sample": list(config.spatial_up),
        "decoder_temporal_up_sample": list(config.temporal_up),
        "decoder_block_dropout": [0.0] * blocks[1],
        "decoder_act_fn": "silu",
        "decoder_norm_num_groups": config.norm_groups,
        "decoder_type": "causal_vae_conv",
        "sample_size": 256,
        "scaling_factor": 0.13025,
        "add_post_quant_conv": True,
        "interpolate": False,
        "downsample_scale": config.spatial_ratio,
    }


def published_name(key: str) -> str:
    """The published name of one of our keys."""
    for ours, theirs in NAMES + SAMPLERS[key.partition(".")[0]]:
        key = key.replace(ours, theirs)
    return key


def from_published(weights: Mapping[str, Tensor], config: VAEConfig, source: str = "weights") -> dict[str, Tensor]:
    """Our state dict from a published one.

    Raises:
        UserError: names `source` and the first key that is missing, surplus or of another shape.
    """
    with torch.device("meta"):
        expected = {published_name(key): (key, tensor) for key, tensor in CausalVAE(config).state_dict().items()}
    check_keys(shapes(weights), {name: tensor.shape for name, (_, tensor) in expected.items()}, source)
    return {key: weights[name] for name, (key, _) in expected.items()}


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published state dict of ours."""
    return {published_name(key): tensor for key, tensor in state.items()}
