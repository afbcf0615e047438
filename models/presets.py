"""Named model configurations."""

from difflib import get_close_matches

from rayramid.models.dit.config import DiTConfig
from rayramid.models.errors import UserError

PRESETS: dict[str, DiTConfig] = {
    # The published SD3-style MM-DiT: temporal RoPE over the whole head, additive spatial positions.
    "sd3-2b": DiTConfig(
        heads=24,
        head_dim=64,
        double_blocks=24,
        text_dim=4096,
        pooled_dim=2048,
        rope_axes=(64, 0, 0),
        position_table=192,
        position_base=64,
        qk_norm_eps=1e-5,
    ),
    # The published miniFLUX: double and single blocks, RoPE over time, height and width.
    "miniflux-2b": DiTConfig(
        heads=30,
        head_dim=64,
        double_blocks=8,
        single_blocks=16,
        text_dim=4096,
        pooled_dim=768,
        rope_axes=(16, 24, 24),
    ),
    # miniFLUX in a size that a CPU trains: a million parameters, the text encoders of `models/tiny.py`.
    "tiny": DiTConfig(
        heads=3,
        head_dim=32,
        double_blocks=2,
        single_blocks=2,
        text_dim=64,
        pooled_dim=64,
        rope_axes=(8, 12, 12),
    ),
    # Three times as many parameters, for the sprites world that ships with a trained model.
    "small": DiTConfig(
        heads=5,
        head_dim=32,
        double_blocks=1,
        single_blocks=5,
        text_dim=64,
        pooled_dim=64,
        rope_axes=(8, 12, 12),
    ),
}


def preset(name: str) -> DiTConfig:
    """The configuration called `name`; UserError with the nearest name when there is none."""
    if name not in PRESETS:
        nearest = get_close_matches(name, PRESETS, n=1)
        hint = f", did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(PRESETS)}"
        raise UserError(f"no preset {name}{hint}")
    return PRESETS[name]
