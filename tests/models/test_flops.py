"""Parameters and operations of the formula against the real modules on the meta device, which allocates nothing."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.flops import forward_flops, parameter_count, visible_pairs
from rayramid.models.history import Segment
from rayramid.models.presets import PRESETS
from rayramid.models.sequence import Clip, Piece, Prompt, assemble, training_segments, training_spans

SMALL = DiTConfig(
    heads=2, head_dim=32, double_blocks=2, single_blocks=1, text_dim=24, pooled_dim=8, rope_axes=(8, 12, 12)
)


def training_clip(config, latents, height, width, text, first_unit, units):
    """Empty clips of the shapes that training has; official conditioning makes one per target."""
    rows = []
    for spans in training_spans(config, latents, first_unit, units):
        pieces = tuple(
            Piece(
                span.kind,
                span.unit,
                span.level,
                torch.empty(config.latent_channels, span.stop - span.start, height >> span.level, width >> span.level),
                500.0,
                span.start,
            )
            for span in spans
        )
        rows.append(Clip((Prompt(torch.empty(text, config.text_dim), torch.empty(config.pooled_dim)),), pieces))
    return rows


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("conditioning", ["shared_context", "official"])
def test_parameter_count_is_exact(name, conditioning):
    config = dataclasses.replace(PRESETS[name], conditioning=conditioning)
    with torch.device("meta"):
        dit = DiT(config)
    assert parameter_count(config) == sum(parameter.numel() for parameter in dit.parameters())


@pytest.mark.parametrize("name", ["sd3-2b", "miniflux-2b", "tiny"])
@pytest.mark.parametrize("conditioning", ["shared_context", "official"])
@pytest.mark.parametrize(("first_unit", "units"), [(0, 1), (3, 1), (1, 3)])
def test_flops_agree_with_the_counter_within_one_percent(name, conditioning, first_unit, units):
    config = dataclasses.replace(PRESETS[name], conditioning=conditioning)
    latents, height, width, text = 4, 32, 48, 77
    with torch.device("meta"):
        dit = DiT(config)
    pack = assemble(training_clip(config, latents, height, width, text, first_unit, units), config).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        dit(pack)
    segments = training_segments(config, (latents, height, width), text, first_unit, units)
    assert forward_flops(config, segments) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_visible_pairs_by_hand():
    """Text of 3, unit 0 at levels 1 and 0 with 1 and 4 tokens; a target of unit 1 at level 0 sees C(0, 0)."""
    text = Segment(0, "text", 0, 0, (3, 1, 1))
    coarse, fine = Segment(0, "context", 0, 1, (1, 1, 1)), Segment(0, "context", 0, 0, (1, 2, 2))
    target = Segment(0, "target", 1, 0, (1, 2, 2))
    config = dataclasses.replace(SMALL, levels=2)
    assert visible_pairs(config, [text, coarse, fine, target]) == 3 * 3 + 1 * (3 + 1) + 4 * (3 + 4) + 4 * (3 + 4 + 4)
    assert visible_pairs(config, [target], cached=[text, coarse, fine]) == 4 * (3 + 4 + 4)
