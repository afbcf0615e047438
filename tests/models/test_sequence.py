"""Packs: positions by hand, refusals, and first-fit-decreasing bins."""

import dataclasses

import pytest
import torch

from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.embeddings import patchify, positions, table_positions, unpatchify
from rayramid.models.history import Segment
from rayramid.models.sequence import Clip, Piece, Prompt, assemble, training_segments

CONFIG = DiTConfig(
    heads=2, head_dim=8, double_blocks=1, text_dim=6, pooled_dim=5, rope_axes=(4, 2, 2), latent_channels=3, levels=2
)
OFFICIAL = dataclasses.replace(CONFIG, conditioning="official")
PROMPT = Prompt(torch.zeros(4, 6), torch.zeros(5))


def piece(kind: str, unit: int, level: int, frames: int = 1, size: tuple[int, int] = (8, 12), start: int = 0) -> Piece:
    latent = torch.zeros(3, frames, size[0] >> level, size[1] >> level)
    return Piece(kind, unit, level, latent, 500.0 if kind == "target" else 0.0, start)  # type: ignore[arg-type]


def test_shared_context_has_a_segment_per_piece_and_positions_on_the_full_resolution_grid() -> None:
    made = assemble([Clip((PROMPT,), (piece("context", 0, 1), piece("target", 1, 0, frames=2, start=1)))], CONFIG)
    assert made.segments == (
        Segment(0, "text", 0, 0, (4, 1, 1)),
        Segment(0, "context", 0, 1, (1, 2, 3), stride=2),
        Segment(0, "target", 1, 0, (2, 4, 6), 500.0, start=1),
    )
    assert made.length == 4 + 6 + 48
    assert positions(made.segments[1:2]).tolist() == [
        [0, 0.5, 0.5],
        [0, 0.5, 2.5],
        [0, 0.5, 4.5],
        [0, 2.5, 0.5],
        [0, 2.5, 2.5],
        [0, 2.5, 4.5],
    ]
    assert positions(made.segments[2:])[[0, 1, 6, 47]].tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0], [2, 3, 5]]
    assert positions(made.segments[:1]).unique().tolist() == [0]


def test_official_has_a_segment_per_frame_at_the_targets_timestep_and_grid() -> None:
    clip = Clip((PROMPT,), (piece("context", 0, 1, frames=2), piece("target", 2, 1, frames=2, start=2)))
    made = assemble([clip], OFFICIAL)
    assert [(segment.start, segment.grid, segment.stride) for segment in made.segments[1:]] == [
        (0, (1, 2, 3), 1),
        (1, (1, 2, 3), 1),
        (2, (1, 2, 3), 1),
        (3, (1, 2, 3), 1),
    ]
    assert {segment.timestep for segment in made.segments} == {500.0}
    assert made.targets == ((3, 4),)


def test_position_table_is_cropped_at_its_centre_and_interpolated_for_coarser_copies() -> None:
    config = dataclasses.replace(CONFIG, position_table=6, position_base=3)
    fine = table_positions(Segment(0, "target", 0, 0, (1, 2, 2)), config, torch.float64)
    coarse = table_positions(Segment(0, "context", 0, 1, (1, 1, 1), stride=2), config, torch.float64)
    # The crop of 2 in 6 begins at 2; a step of the table is 3/6. Columns come first.
    angles = torch.tensor([1.0, 1.5], dtype=torch.float64)[:, None] * 10000.0 ** -(torch.arange(4) / 4).double()
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    expected = torch.stack([torch.cat([axis[column], axis[row]]) for row in (0, 1) for column in (0, 1)])
    torch.testing.assert_close(fine, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(coarse[0], expected.mean(0), rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="grid of 8 tokens a side: the position table has 6"):
        table_positions(Segment(0, "target", 0, 0, (1, 8, 2)), config, torch.float64)


def test_patches_hold_rows_columns_then_channels() -> None:
    latent = torch.arange(2 * 1 * 2 * 4).view(2, 1, 2, 4)
    tokens = patchify(latent, 2)
    assert tokens.tolist() == [[0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]]
    assert torch.equal(unpatchify(tokens, (1, 1, 2), 2), latent)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (Clip((PROMPT,), (piece("target", 0, 0, size=(6, 8)),)), "latent of 8x6: both sides must be multiples of 4"),
        (Clip((PROMPT,), (piece("context", 0, 1), piece("target", 1, 0, size=(8, 8)))), "different sizes"),
        (Clip((PROMPT,), (piece("target", 0, 2, size=(16, 16)),)), "level 2: the model has levels 0 to 1"),
        (Clip((), (piece("target", 0, 0),)), "prompt 0: the clip has 0"),
        (Clip((Prompt(torch.zeros(4, 7), torch.zeros(5)),), ()), "prompt of shape \\(4, 7\\): the model takes"),
        (Clip((Prompt(None, torch.zeros(4)),), ()), "pooled prompt of shape \\(4,\\): the model takes \\[5\\]"),
        (Clip((PROMPT,), (Piece("target", 0, 0, torch.zeros(3, 8, 8), 0.0, 0),)), "latent of shape \\(3, 8, 8\\)"),
    ],
)
def test_refusals_say_what_is_allowed(clip: Clip, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assemble([clip], CONFIG)


def test_official_refuses_two_timesteps_finer_history_and_cached_text() -> None:
    two = Clip((PROMPT,), (piece("target", 0, 0), piece("target", 0, 1)))
    with pytest.raises(ValueError, match="one target at one level"):
        assemble([two], OFFICIAL)
    with pytest.raises(ValueError, match="history finer than the target's level 1"):
        assemble([Clip((PROMPT,), (piece("context", 0, 0), piece("target", 1, 1, start=1)))], OFFICIAL)
    with pytest.raises(ValueError, match="one prompt with its tokens"):
        assemble([Clip((Prompt(None, torch.zeros(5)),), (piece("target", 0, 0),))], OFFICIAL)


def test_token_counts_of_a_plan_by_hand() -> None:
    config = dataclasses.replace(CONFIG, levels=3)
    # 16 x 24: 96, 24 and 6 tokens. Unit 2 needs C(1, 0..2) and C(0, 1..2).
    segments = training_segments(config, (4, 16, 24), text_tokens=7, first_unit=2, units=1)
    assert sum(segment.length for segment in segments) == 7 + (24 + 6) + (96 + 24 + 6) + (96 + 24 + 6)
    official = dataclasses.replace(config, conditioning="official")
    rows = training_segments(official, (4, 16, 24), text_tokens=7, first_unit=2, units=1)
    # One row per stage: C(0, .), C(1, .) and the target.
    assert [sum(s.length for s in rows if s.clip == row) for row in range(3)] == [7 + 18, 7 + 6 + 24 + 24, 7 + 24 + 192]
