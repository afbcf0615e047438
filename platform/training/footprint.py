"""What one visit of a clip adds to a packed sequence; counted from the segments that the pack will have."""

from functools import cache

from rayramid.models.dit.config import DiTConfig
from rayramid.models.flops import TRAINING_FACTOR, forward_flops
from rayramid.models.history import unit_span
from rayramid.models.sequence import training_segments
from rayramid.platform.training.index import Measure, Size


def measure_for(config: DiTConfig, finest: int = 0) -> Measure:
    """The measure of clips for a model whose stages down to level `finest` are targets."""

    @cache
    def counted(through: int, height: int, width: int, first_unit: int, units: int, text: int) -> tuple[int, int]:
        segments = training_segments(config, (through, height, width), text, first_unit, units, finest)
        return sum(segment.length for segment in segments), TRAINING_FACTOR * forward_flops(config, segments)

    @cache
    def measure(latents: int, height: int, width: int, text: int, first_unit: int, units: int) -> Size:
        # What lies behind the last target adds nothing, so clips of any length share their sizes.
        through = unit_span(first_unit + units - 1, config.frames_per_unit, latents)[1]
        # Operations grow with the square of the text at most: three lengths tell those of all others, exactly.
        (none, f0), (one, f1), (_, f2) = (counted(through, height, width, first_unit, units, n) for n in range(3))
        return Size(none + text * (one - none), f0 + text * (f1 - f0) + text * (text - 1) // 2 * (f2 - 2 * f1 + f0))

    return measure
