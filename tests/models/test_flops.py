"""Parameters and operations of the formula against the real modules on the meta device, which allocates nothing."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rayramid.models import attention
from rayramid.models.dit.config import SHARED_PARTS, DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.flops import TRAINING_FACTOR, forward_flops, parameter_count, visible_pairs
from rayramid.models.history import Segment
from rayramid.models.presets import PRESETS
from rayramid.models.sequence import Clip, Piece, Prompt, assemble, training_segments, training_spans

SMALL = DiTConfig(
    heads=2, head_dim=32, double_blocks=2, single_blocks=1, text_dim=24, pooled_dim=8, rope_axes=(8, 12, 12)
)


def training_clips(config, shape, text, first_unit, units):
    """Empty clips of the shapes that training has; official conditioning makes one per target."""
    latents, height, width = shape
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


def counted(config, shape, *, text, first_unit, units):
    """Operations of a forward, and of a forward and backward, as torch counts them."""
    with torch.device("meta"):
        dit = DiT(config)
    pack = assemble(training_clips(config, shape, text, first_unit, units), config).to("meta")
    with FlopCounterMode(display=False) as counter:
        velocities = dit(pack)
        forward = counter.get_total_flops()
        sum(velocity.square().sum() for velocity in velocities).backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    "changes",
    [{}, {"conditioning": "official"}, {"conditioning": "official", "shared_parts": ("roles",)}],
    ids=["shared_context", "official", "roles"],
)
def test_parameter_count_is_exact(name, changes):
    config = replace(PRESETS[name], **changes)
    with torch.device("meta"):
        dit = DiT(config)
    assert parameter_count(config) == sum(parameter.numel() for parameter in dit.parameters())


@pytest.fixture
def unpadded(monkeypatch):
    """The sdpa executor may pad keys, to save calls; without that it computes what is seen and no more."""
    monkeypatch.setattr(attention, "PADDING", 1.0)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("conditioning", ["shared_context", "official"])
def test_flops_are_those_that_torch_counts(name, conditioning, unpadded):
    """Two blocks of each kind at the preset's width."""
    full = PRESETS[name]
    config = replace(full, conditioning=conditioning, double_blocks=2, single_blocks=min(full.single_blocks, 2))
    shape = (4, 32, 48)
    forward, both = counted(config, shape, text=77, first_unit=1, units=3)
    formula = forward_flops(config, training_segments(config, shape, 77, 1, 3))
    assert formula == forward
    assert TRAINING_FACTOR * formula == pytest.approx(both, rel=0.01)


@pytest.mark.parametrize("part", SHARED_PARTS)
def test_flops_of_official_with_a_part_of_shared_context(part, unpadded):
    config = replace(SMALL, conditioning="official", shared_parts=(part,))
    forward, _ = counted(config, (4, 16, 16), text=9, first_unit=1, units=3)
    assert forward_flops(config, training_segments(config, (4, 16, 16), 9, 1, 3)) == forward


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd3-2b", "miniflux-2b"])
def test_flops_of_whole_presets(name, unpadded):
    config, shape = PRESETS[name], (16, 48, 80)
    forward, both = counted(config, shape, text=128, first_unit=15, units=1)
    formula = forward_flops(config, training_segments(config, shape, 128, 15, 1))
    assert formula == forward
    assert TRAINING_FACTOR * formula == pytest.approx(both, rel=0.01)


def test_padding_of_keys_adds_little():
    config, shape = PRESETS["tiny"], (4, 64, 96)
    forward, _ = counted(config, shape, text=77, first_unit=1, units=3)
    assert forward < 1.1 * forward_flops(config, training_segments(config, shape, 77, 1, 3))


def test_visible_pairs_by_hand():
    """Text of 3, unit 0 at levels 1 and 0 with 1 and 4 tokens; a target of unit 1 at level 0 sees C(0, 0)."""
    text = Segment(0, "text", 0, 0, (3, 1, 1))
    coarse, fine = Segment(0, "context", 0, 1, (1, 1, 1)), Segment(0, "context", 0, 0, (1, 2, 2))
    target = Segment(0, "target", 1, 0, (1, 2, 2))
    config = replace(SMALL, levels=2)
    assert visible_pairs(config, [text, coarse, fine, target]) == 3 * 3 + 1 * (3 + 1) + 4 * (3 + 4) + 4 * (3 + 4 + 4)
    assert visible_pairs(config, [target], cached=[text, coarse, fine]) == 4 * (3 + 4 + 4)
