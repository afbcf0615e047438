"""What a training pack draws, what it answers, and what the loss weighs."""

import dataclasses

import numpy as np
import pytest
import torch

from rayramid.models.dit.config import SHARED_PARTS, DiTConfig, SharedPart
from rayramid.models.history import Segment
from rayramid.models.objective import Targets, Text, TrainingClip, objective, training_pack
from rayramid.models.pyramid import Pyramid, down
from rayramid.models.sequence import Pack, training_segments

CONFIG = DiTConfig(
    heads=2, head_dim=8, double_blocks=1, text_dim=6, pooled_dim=5, rope_axes=(4, 2, 2), latent_channels=3, levels=2
)
PYRAMID = Pyramid(levels=2)


def clip(key: int = 0, first_unit: int = 1, units: int = 2, latents: int = 3, seed: int = 0) -> TrainingClip:
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(3, latents, 8, 8, generator=generator, dtype=torch.float64)
    return TrainingClip(latent, torch.full((4, 6), 0.5), torch.full((5,), 0.25), first_unit, units, key)


def content(pack: Pack) -> dict[tuple[str, int, int], torch.Tensor]:
    pairs = zip(pack.segments, pack.contents, strict=True)
    return {(segment.kind, segment.unit, segment.level): x for segment, x in pairs}


def bare(segment: Segment) -> Segment:
    return dataclasses.replace(segment, timestep=0.0)


@pytest.mark.parametrize(
    ("conditioning", "parts"), [("shared_context", ()), ("official", ()), ("official", SHARED_PARTS)]
)
@pytest.mark.parametrize("frames_per_unit", [1, 2, None])
def test_a_pack_has_the_segments_that_were_planned(
    conditioning: str, parts: tuple[SharedPart, ...], frames_per_unit: int | None
) -> None:
    config = dataclasses.replace(CONFIG, conditioning=conditioning, shared_parts=parts, frames_per_unit=frames_per_unit)
    window = (0, 1) if frames_per_unit is None else (1, 2)
    for finest in (0, 1):
        made = dataclasses.replace(clip(first_unit=window[0], units=window[1], latents=5), finest=finest)
        pack, _ = training_pack([made], config, PYRAMID, seed=0)
        assert [bare(segment) for segment in pack.segments] == training_segments(config, (5, 8, 8), 4, *window, finest)


def test_a_clip_without_its_finest_stage_is_the_rest_of_the_whole() -> None:
    pack, targets = training_pack([dataclasses.replace(clip(), finest=1)], CONFIG, PYRAMID, seed=0)
    whole = content(training_pack([clip()], CONFIG, PYRAMID, seed=0)[0])
    assert targets.levels == (1, 1)
    assert all(torch.equal(x, whole[name]) for name, x in content(pack).items())
    assert {level for kind, _, level in content(pack) if kind != "text"} == {1}


def test_draws_depend_on_seed_key_unit_and_level_alone() -> None:
    alone = content(training_pack([clip(key=5, units=1)], CONFIG, PYRAMID, seed=3)[0])
    pack, _ = training_pack([clip(key=9, seed=1), clip(key=5, units=2)], CONFIG, PYRAMID, seed=3)
    second = [(s, x) for s, x in zip(pack.segments, pack.contents, strict=True) if s.clip == 1]
    company = {(s.kind, s.unit, s.level): x for s, x in second}
    assert len(alone) == 1 + 2 + 2
    assert all(torch.equal(x, company[name]) for name, x in alone.items())
    for other in (
        training_pack([clip(key=5, units=1)], CONFIG, PYRAMID, seed=4)[0],
        training_pack([clip(key=6, units=1)], CONFIG, PYRAMID, seed=3)[0],
    ):
        assert not torch.equal(content(other)["target", 1, 0], alone["target", 1, 0])


def test_targets_answer_end_minus_start_and_lie_between() -> None:
    made = clip()
    pack, targets = training_pack([made], CONFIG, PYRAMID, seed=0)
    assert (targets.units, targets.levels) == ((1, 1, 2, 2), (1, 0, 1, 0))
    for (index,), velocity, unit, level, time in zip(
        pack.targets, targets.velocities, targets.units, targets.levels, targets.times, strict=True
    ):
        timestep = pack.segments[index].timestep
        first, last = PYRAMID.timestep_windows[level]
        t = (timestep - first) / (last - first)
        assert t == pytest.approx(time, abs=1e-5)
        # At the stage's end the noise left is (1 - e) n; at level 0 nothing.
        end = pack.contents[index] + (1 - t) * velocity
        start = pack.contents[index] - t * velocity
        clean = down(made.latent_CTHW[:, unit : unit + 1], level)
        s, e = PYRAMID.windows[level]
        if level == 0:
            torch.testing.assert_close(end, clean, rtol=0, atol=1e-5)
            noise = (start - s * down(clean, 1).repeat_interleave(2, -1).repeat_interleave(2, -2)) / (1 - s)
        else:
            noise = start
            torch.testing.assert_close(end, e * clean + (1 - e) * noise, rtol=0, atol=1e-5)
        assert 0.5 < noise.std() < 1.5


def test_one_sigma_per_visit_and_independent_noise_per_copy() -> None:
    made = clip(first_unit=2, units=1)
    pack, _ = training_pack([made], CONFIG, PYRAMID, seed=0, history_noise=0.3)
    told = {segment.timestep for segment in pack.segments if segment.kind == "context"}
    assert len(told) == 1
    sigma = told.pop() / 1000
    assert 0 < sigma < 0.3
    noises = {}
    for (kind, unit, level), x in content(pack).items():
        if kind == "context":
            clean = down(made.latent_CTHW[:, unit : unit + 1], level)
            noises[unit, level] = (x - (1 - sigma) * clean) / sigma
    assert sorted(noises) == [(0, 1), (1, 0), (1, 1)]
    assert 0.8 < noises[1, 0].std() < 1.2
    # A coarser copy's noise is its own, not the finer one's mean.
    correlation = np.corrcoef(2 * down(noises[1, 0], 1).flatten(), noises[1, 1].flatten())[0, 1]
    assert abs(correlation) < 0.5
    sigmas = set()
    for key in range(4):
        segments = training_pack([clip(key=key)], CONFIG, PYRAMID, seed=0)[0].segments
        sigmas |= {segment.timestep for segment in segments if segment.kind == "context"}
    assert len(sigmas) == 4


def test_clean_history_is_untouched_and_told_zero() -> None:
    made = clip()
    pack, _ = training_pack([made], CONFIG, PYRAMID, seed=0, history_noise=0.0)
    assert torch.equal(content(pack)["context", 0, 0], made.latent_CTHW[:, :1])
    assert {segment.timestep for segment in pack.segments if segment.kind == "context"} == {0.0}


def test_text_is_dropped_at_its_rate_and_only_then_replaced() -> None:
    empty = Text(torch.zeros(1, 6), torch.zeros(5))
    clips = [clip(key=key, first_unit=0, units=1) for key in range(200)]
    pack, _ = training_pack(clips, CONFIG, PYRAMID, seed=0, text_dropout=0.25, empty_text=empty)
    words = [segment.length for segment in pack.segments if segment.kind == "text"]
    assert set(words) == {1, 4}
    assert 30 < words.count(1) < 70
    assert [bool(row.any()) for row in pack.pooled_QP] == [count == 4 for count in words]
    with pytest.raises(ValueError, match="text_dropout needs empty_text"):
        training_pack(clips, CONFIG, PYRAMID, seed=0, text_dropout=0.25)


def test_official_rows_tell_every_token_the_targets_timestep() -> None:
    config = dataclasses.replace(CONFIG, conditioning="official")
    pack, targets = training_pack([clip(first_unit=2, units=1)], config, PYRAMID, seed=0)
    assert (targets.units, targets.levels, pack.clips) == ((2, 2), (1, 0), 2)
    for row in range(2):
        assert len({segment.timestep for segment in pack.segments if segment.clip == row}) == 1


def test_a_target_weighs_the_same_whatever_its_size() -> None:
    targets = Targets((torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 4, 4)), units=(0, 0), levels=(1, 0), times=(0.5, 0.5))
    loss = objective([torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 4, 4), 1.0)], targets)
    assert (float(loss.mean), float(loss.total()), loss.count) == (2.5, 5.0, 2)
    assert float(loss.total(weights=(10.0, 1.0))) == 10 * 1.0 + 1 * 4.0
    assert loss.table() == {(1, 0): (4.0, 1), (0, 0): (1.0, 1)}


def test_the_loss_is_fp32_for_bf16_velocities_and_float64_for_double() -> None:
    targets = Targets((torch.zeros(1, 1, 1, 1),), (0,), (0,), (0.5,))
    assert objective([torch.full((1, 1, 1, 1), 1.0, dtype=torch.bfloat16)], targets).mean.dtype == torch.float32
    assert objective([torch.full((1, 1, 1, 1), 1.0, dtype=torch.float64)], targets).mean.dtype == torch.float64


def test_refusals_say_what_is_allowed() -> None:
    spoilt = clip()
    spoilt.latent_CTHW[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="latent holds NaN"):
        training_pack([spoilt], CONFIG, PYRAMID, seed=0)
    odd = dataclasses.replace(clip(), latent_CTHW=torch.zeros(3, 3, 6, 8))
    with pytest.raises(ValueError, match="latent of 8x6: both sides must be multiples of 4"):
        training_pack([odd], CONFIG, PYRAMID, seed=0)
    with pytest.raises(ValueError, match="units 2 to 3: the video has units 0 to 2"):
        training_pack([clip(first_unit=2, units=2)], CONFIG, PYRAMID, seed=0)
    with pytest.raises(ValueError, match="the pyramid has 3 levels, the model 2"):
        training_pack([clip()], CONFIG, Pyramid(), seed=0)
    even = dataclasses.replace(CONFIG, frames_per_unit=2)
    with pytest.raises(ValueError, match="4 latents: must be 1 \\+ a multiple of 2"):
        training_pack([clip(latents=4)], even, PYRAMID, seed=0)
    for share in ({"history_noise": -0.1}, {"text_dropout": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(share))} is .*from 0 to 1"):
            training_pack([clip()], CONFIG, PYRAMID, seed=0, **share)
    with pytest.raises(ValueError, match="a pack has at least one"):
        training_pack([], CONFIG, PYRAMID, seed=0)
