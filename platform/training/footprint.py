"""What one visit of a clip costs in a packed sequence; counted from the segments that the pack will have."""

from collections import defaultdict
from functools import cache

from rayramid.models.dit.config import DiTConfig
from rayramid.models.history import Segment, sees, sees_official, unit_span
from rayramid.models.sequence import training_segments
from rayramid.platform.training.index import Measure, Size


def measure_for(config: DiTConfig) -> Measure:
    """The measure of clips for a model.

    The cost counts a layer's matrix products, in units of 4 x width operations: 6 x width per token (24 x width² for
    the projections and the MLP), and 1 per pair of tokens that sees each other.
    """

    @cache
    def sized(latents: int, height: int, width: int, text: int, first_unit: int, units: int) -> Size:
        segments = training_segments(config, (latents, height, width), text, first_unit, units)
        tokens = sum(segment.length for segment in segments)
        return Size(tokens, float(6 * config.width * tokens + _pairs(segments, config)))

    def measure(latents: int, height: int, width: int, text: int, first_unit: int, units: int) -> Size:
        # What lies behind the last target adds nothing, so clips of any length share their sizes.
        through = unit_span(first_unit + units - 1, config.frames_per_unit, latents)[1]
        return sized(through, height, width, text, first_unit, units)

    return measure


def _pairs(segments: list[Segment], config: DiTConfig) -> int:
    by_clip: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        by_clip[segment.clip].append(segment)

    def visible(query: Segment, key: Segment) -> bool:
        if config.conditioning == "official":
            return sees_official(query, key, causal=config.causal)
        return sees(query, key, config.levels, config.history_units)

    return sum(
        query.length * key.length
        for members in by_clip.values()
        for query in members
        for key in members
        if visible(query, key)
    )
