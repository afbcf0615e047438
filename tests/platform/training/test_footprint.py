"""What planning says of a visit is what its pack will have."""

import dataclasses

import pytest

from rayramid.models.flops import forward_flops
from rayramid.models.presets import preset
from rayramid.models.sequence import training_segments
from rayramid.platform.training.footprint import measure_for


@pytest.mark.parametrize("frames_per_unit", [1, 2, None])
@pytest.mark.parametrize("conditioning", ["shared_context", "official"])
@pytest.mark.parametrize(("name", "finest"), [("sd3-2b", 0), ("tiny", 0), ("tiny", 1)])
def test_tokens_and_operations_are_those_of_the_segments(name, finest, conditioning, frames_per_unit):
    config = dataclasses.replace(preset(name), conditioning=conditioning, frames_per_unit=frames_per_unit)
    measure = measure_for(config, finest)
    windows = [(0, 1)] if frames_per_unit is None else [(0, 1), (0, 3), (2, 1)]
    for window in windows:
        for text in (1, 2, 17, 128):
            segments = training_segments(config, (5, 16, 24), text, *window, finest)
            size = measure(5, 16, 24, text, *window)
            assert size.tokens == sum(segment.length for segment in segments)
            assert size.flops == 3 * forward_flops(config, segments)
