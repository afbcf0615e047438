"""Floating point operations of a DiT's forward, from its shapes and the visibility rule. A multiply-add counts as two.

Shape letters: T tokens, S segments, D width.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rayramid.models.dit.config import DiTConfig
from rayramid.models.history import Segment, sees, sees_official

TIME_WAVES = 256

# A backward pass has two products for each of the forward's.
TRAINING_FACTOR = 3


def forward_flops(config: DiTConfig, segments: Sequence[Segment], cached: Sequence[Segment] = ()) -> int:
    """Operations of one forward of `segments`, whose queries also see `cached`; element-wise work is not counted."""
    width, mlp = config.width, config.mlp_ratio
    text = sum(segment.length for segment in segments if segment.kind == "text")
    video = sum(segment.length for segment in segments) - text
    texts = sum(segment.kind == "text" for segment in segments)
    videos = len(segments) - texts
    heads = [segment for segment in segments if segment.kind == "target"]
    targets = sum(segment.length for segment in heads)
    patch = config.patch**2 * config.latent_channels

    # Multiply-adds in units of D: what a token passes, then what a segment's modulation takes.
    stream, modulation = (3 + 1 + 2 * mlp) * width, 6 * width
    last_stream, last_modulation = (stream, modulation) if config.single_blocks else (3 * width, 2 * width)
    doubles, singles = config.double_blocks, config.single_blocks
    per_width = (
        doubles * (video * stream + videos * modulation)
        + (doubles - 1) * (text * stream + texts * modulation)
        + (text * last_stream + texts * last_modulation)
        + singles * ((text + video) * (3 + mlp + 1 + mlp) * width + len(segments) * 3 * width)
        + video * patch
        + text * config.text_dim
        + len(segments) * (TIME_WAVES + width)
        + texts * (config.pooled_dim + width)
        + targets * patch
        + len(heads) * 2 * width
    )
    # Scores and weighted values: two products of D for every visible pair, in every block.
    attention = 2 * (doubles + singles) * visible_pairs(config, segments, cached)
    return 2 * width * (per_width + attention)


def visible_pairs(config: DiTConfig, segments: Sequence[Segment], cached: Sequence[Segment] = ()) -> int:
    """Pairs of a query token in `segments` and a key token that it sees, there or in `cached`."""
    of_clip: dict[int, list[Segment]] = defaultdict(list)
    for key in (*cached, *segments):
        of_clip[key.clip].append(key)
    return sum(
        query.length * sum(key.length for key in of_clip[query.clip] if is_visible(config, query, key))
        for query in segments
    )


def is_visible(config: DiTConfig, query: Segment, key: Segment) -> bool:
    """The visibility rule of the configuration's conditioning."""
    if config.conditioning == "official":
        return sees_official(query, key, causal=config.causal, own_text=config.shares("own_text"))
    return sees(query, key, config.levels, config.history_units)


def parameter_count(config: DiTConfig) -> int:
    """Parameters of `DiT(config)`."""
    width, mlp = config.width, config.mlp_ratio
    patch = config.patch**2 * config.latent_channels

    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    def two_layers(inputs: int, hidden: int, outputs: int) -> int:
        return linear(inputs, hidden) + linear(hidden, outputs)

    keys_only = linear(width, 3 * width) + 2 * config.head_dim
    stream = keys_only + linear(width, 6 * width) + linear(width, width) + two_layers(width, mlp * width, width)
    last_text = stream if config.single_blocks else keys_only + linear(width, 2 * width)
    single = keys_only + linear(width, 3 * width) + linear(width, mlp * width) + linear((1 + mlp) * width, width)
    roles = 2 * config.roles * width if config.shares("roles") else 0
    return (
        linear(patch, width)
        + linear(config.text_dim, width)
        + two_layers(TIME_WAVES, width, width)
        + two_layers(config.pooled_dim, width, width)
        + roles
        + (2 * config.double_blocks - 1) * stream
        + last_text
        + config.single_blocks * single
        + linear(width, 2 * width)
        + linear(width, patch)
    )


def official_of(config: DiTConfig) -> DiTConfig:
    """The same model with a sequence of its own for each target, as published: the comparison for shared context."""
    return replace(config, conditioning="official")


def full_sequence_of(config: DiTConfig) -> DiTConfig:
    """The same model as full-sequence diffusion at full resolution: everything noisy, everything sees everything."""
    return replace(config, conditioning="official", causal=False, levels=1, frames_per_unit=None)
