"""The cost of configurations: the paper's token counts, and hand-computed small ones."""

import dataclasses
import json

import pytest

from rayramid.models.cost import latent_grid, live_copies, plan_cost
from rayramid.models.cost_report import report, with_prefix
from rayramid.models.errors import UserError
from rayramid.models.memory import cache_bytes
from rayramid.models.presets import PRESETS


@pytest.fixture(scope="module")
def paper():
    return plan_cost("sd3-2b", 1280, 768, 241)


def test_the_papers_token_counts(paper):
    """Paper, section 3.3: 10 s at 768p are 119,040 tokens as a full sequence and 15,360 as a pyramid."""
    assert (paper.full_sequence_tokens, paper.pyramid_tokens) == (119_040, 15_360)
    assert [(stage.level, stage.separate_tokens) for stage in paper.stages] == [(2, 7_440), (1, 8_880), (0, 15_360)]
    assert [stage.grid for stage in paper.stages] == [(12, 20), (24, 40), (48, 80)]
    assert [stage.target_tokens for stage in paper.stages] == [240, 960, 3_840]


def test_every_number_goes_into_json(paper):
    assert json.loads(json.dumps(dataclasses.asdict(paper)))["latents"] == 31


def test_the_report_shows_the_paper(paper):
    text = report(paper)
    assert "119,040" in text
    assert "15,360" in text
    assert with_prefix(3.41e13, "FLOP") == "34.1 TFLOP"
    assert with_prefix(12, "B") == "12 B"


def test_shared_context_by_hand():
    """tiny at 128x128, 17 frames: units of 64, 16 and 4 tokens by level, text 10."""
    plan = plan_cost("tiny", 128, 128, 17, text_tokens=10)
    by_units = {row.units_per_clip: row for row in plan.training}
    assert list(by_units) == [1, 2, 3]
    # All three units at all levels: copies of units 0 and 1 (84 each), targets (84 each), text.
    assert by_units[3].largest_sequence == 10 + 2 * 84 + 3 * 84
    # By stage, coarsest first, for each target: all copies and targets of its level, shared by three targets.
    assert by_units[3].stage_tokens == pytest.approx([5 * 4 / 3, 5 * 16 / 3, 5 * 64 / 3])
    assert by_units[3].tokens_per_target == pytest.approx((10 + 5 * 84) / 9)
    assert by_units[3].flops_per_sequence == pytest.approx(9 * by_units[3].flops_per_target)
    # Separate, by stage: unit 0 has no history, unit 1 sees one unit, unit 2 two.
    assert [stage.mean_separate_tokens for stage in plan.stages] == pytest.approx(
        [(4 + 8 + 12) / 3, (16 + 32 + 36) / 3, (64 + 128 + 144) / 3]
    )
    # The last unit alone: unit 1 at every level, unit 0 where something sees it, at levels 1 and 2.
    assert by_units[1].largest_sequence == 10 + 84 + 20 + 84
    # Separate: unit 0 has no history, unit 1 sees unit 0 at its own level, unit 2 also unit 0 one level down.
    separate = 3 * 3 * 10 + 84 + 2 * 84 + (2 * 84 + 4 + 4 + 16)
    assert by_units[3].token_ratio == pytest.approx(separate / (10 + 5 * 84))


def test_live_copies_are_those_that_something_still_sees():
    """At 768p, 10,560 tokens are live while unit 20 is made, of the 100,800 of all copies."""
    config = PRESETS["sd3-2b"]
    grid = latent_grid(config, 1280, 768, 241)
    live = live_copies(config, grid, 20)
    assert sum(copy.length for copy in live) == 3_840 + 2 * 960 + 20 * 240
    assert sum(copy.length for copy in live_copies(config, grid, 20, evict=False)) == 20 * 5_040
    assert cache_bytes(config, 10_560) == 2 * 2 * 24 * 1_536 * 10_560


def test_guidance_doubles_and_caching_saves(paper):
    sampling = paper.sampling
    alone = plan_cost("sd3-2b", 1280, 768, 241, guided=False).sampling
    assert (sampling.flops, sampling.cache_bytes) == (2 * alone.flops, 2 * alone.cache_bytes)
    assert 2.5 < sampling.recomputed_flops / sampling.flops < 3.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sd3-2", 1280, 768, 241), "no preset sd3-2, did you mean sd3-2b"),
        (("sd3-2b", 1280, 720, 241), "size 1280x720: both sides must be multiples of 64 pixels"),
        (("sd3-2b", 1280, 768, 240), r"240 frames: must be 1 \+ a multiple of 8"),
        (("sd3-2b", 0, 768, 241), "both sides must be multiples of 64 pixels"),
    ],
)
def test_what_can_not_be_made_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        plan_cost(*arguments)
