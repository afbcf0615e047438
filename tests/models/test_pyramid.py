import dataclasses
import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from rayramid.models.pyramid import Pyramid, block_noise, down, down_noise, up

EXACT = {"rtol": 0, "atol": 1e-12}


@st.composite
def pyramids(draw):
    levels = draw(st.integers(1, 5))
    shares = draw(st.lists(st.floats(0.1, 1), min_size=levels, max_size=levels))
    inner = [sum(shares[:i]) / sum(shares) for i in range(1, levels)]
    return Pyramid(
        levels=levels,
        gamma=draw(st.floats(1e-3, 1 / 3)),
        stage_range=(0.0, *inner, 1.0),
        shift=draw(st.floats(0.2, 5)),
        schedule=draw(st.sampled_from(["uniform", "official"])),
    )


# ---- resolutions: hand-computed


def test_down_is_the_repeated_2x2_mean():
    x = torch.arange(16.0).reshape(1, 4, 4)
    assert_close(down(x), torch.tensor([[[2.5, 4.5], [10.5, 12.5]]]))
    assert_close(down(x, 2), torch.tensor([[[7.5]]]))


def test_up_repeats_each_value_in_a_2x2_block():
    assert_close(up(torch.tensor([[1.0, 2.0]])), torch.tensor([[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]))


def test_down_noise_is_half_the_sum_of_a_block():
    z = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert_close(down_noise(z), torch.tensor([[6.0]]))


def test_odd_sides_are_refused_with_the_size():
    with pytest.raises(ValueError, match="3x4"):
        down(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"6x8.*multiples of 4"):
        Pyramid(levels=3).check_size(6, 8)
    Pyramid(levels=2).check_size(6, 8)


# ---- windows


def test_windows_at_one_third_are_those_of_the_paper():
    """e_k = 2 s_k / (1 + s_k): the stages start at 1/2, 1/5 and 0 and end at 1, 2/3 and 1/3."""
    assert_close(torch.tensor(Pyramid().windows), torch.tensor([[1 / 2, 1.0], [1 / 5, 2 / 3], [0.0, 1 / 3]]))


def test_window_start_for_another_gamma():
    """gamma = 1/8: q = 3, so at e = 1/2 the start is .5 / (3 * .5 + .5) = 1/4."""
    assert_close(torch.tensor(Pyramid(2, gamma=1 / 8).windows), torch.tensor([[1 / 4, 1.0], [0.0, 1 / 2]]))


def test_shift_moves_windows_towards_noise():
    """Shift 3 takes sigma 1/2 to 3/4, so the coarse stage ends at signal 1/4."""
    assert_close(torch.tensor(Pyramid(2, shift=3.0).uncorrected), torch.tensor([[1 / 4, 1.0], [0.0, 1 / 4]]))


def test_official_windows_are_cut_to_a_thousandth():
    uncorrected = Pyramid(3, schedule="official").uncorrected
    assert_close(torch.tensor(uncorrected), torch.tensor([[0.666, 1.0], [0.333, 0.666], [0.0, 0.333]]))


def test_timesteps_are_shared_by_flow_length():
    """Lengths 1/3, 7/15, 1/2 of 13/10 in all: edges at 1000 * (1 - 10/39) and 1000 * (1 - 24/39)."""
    expected = torch.tensor([[1000 * 15 / 39, 0.0], [1000 * 29 / 39, 1000 * 15 / 39], [1000.0, 1000 * 29 / 39]])
    assert_close(torch.tensor(Pyramid().timestep_windows), expected)
    middle = Pyramid().timestep(1, torch.tensor([0.5], dtype=torch.float64))
    assert_close(middle, torch.tensor([1000 * 22 / 39]))
    assert middle.dtype == torch.float32


@given(pyramids())
def test_uncorrected_windows_tile_zero_to_one(pyramid):
    by_time = pyramid.uncorrected[::-1]
    assert by_time[0][0] == 0
    assert by_time[-1][1] == 1
    assert all(a[1] == b[0] for a, b in itertools.pairwise(by_time))


@given(pyramids())
def test_corrected_starts_are_noisier_and_timesteps_fall_from_1000(pyramid):
    for (start, end), (uncorrected, same_end) in zip(pyramid.windows, pyramid.uncorrected, strict=True):
        assert 0 <= start <= uncorrected < end == same_end
    edges = [edge for window in pyramid.timestep_windows[::-1] for edge in window]
    assert edges[0] == pytest.approx(1000, rel=1e-6)
    assert edges == sorted(edges, reverse=True)
    assert edges[-1] <= 1 * max(1, pyramid.shift) + 1e-6


# ---- noise and the jump


@given(st.floats(1e-3, 1 / 3))
def test_block_noise_has_unit_variance_and_covariance_minus_gamma(gamma):
    """The noise is linear in z, so its covariance is B B^T with B read off the unit vectors."""
    basis = torch.eye(4, dtype=torch.float64).reshape(4, 2, 2)
    b = block_noise(basis, gamma).reshape(4, 4)
    expected = (1 + gamma) * torch.eye(4, dtype=torch.float64) - gamma * torch.ones(4, 4, dtype=torch.float64)
    assert_close(b.T @ b, expected, **EXACT)


def test_blocks_of_the_papers_noise_sum_to_zero():
    noise = block_noise(torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 1 / 3)
    assert down(noise).abs().max() < 1e-15
    # Eq. 15 at hand: z = (4, 0, 0, 0) has mean 1, and sqrt(4/3) scales the rest.
    z = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    assert_close(block_noise(z, 1 / 3), math.sqrt(4 / 3) * torch.tensor([[3.0, -1.0], [-1.0, -1.0]]))


@given(pyramids(), st.data())
def test_a_jump_restores_the_start_of_the_finer_stage(pyramid, data):
    """Mean and covariance: with x = e d + (1-e) n at the coarse end, the jump is N(s d, (1-s)^2 I)."""
    if pyramid.levels == 1:
        return
    level = data.draw(st.integers(0, pyramid.levels - 2))
    start, end_before = pyramid.windows[level][0], pyramid.windows[level + 1][1]
    zero, one = torch.zeros(2, 2, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    mean = pyramid.jump(end_before * one, zero, level)
    assert_close(mean, start * torch.ones(2, 2, dtype=torch.float64), **EXACT)
    coarse = pyramid.jump((1 - end_before) * one, zero, level).reshape(1, 4)
    fine = pyramid.jump(torch.zeros(4, 1, 1, dtype=torch.float64), torch.eye(4).double().reshape(4, 2, 2), level)
    a = torch.cat([coarse, fine.reshape(4, 4)])
    assert_close(a.T @ a, (1 - start) ** 2 * torch.eye(4, dtype=torch.float64), **EXACT)


def test_jump_coefficients_of_the_paper():
    """Into level 0 at 1/3: s = 1/2, e = 2/3: 3/4 of the latent and sqrt(3)/4 of the block noise."""
    z = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    expected = 0.75 + math.sqrt(3) / 4 * block_noise(z, 1 / 3)
    assert_close(Pyramid().jump(torch.ones(1, 1), z, 0), expected)


# ---- endpoints


def test_endpoints_by_hand():
    """Two levels, e = 1/2, s = 1/3; x has 2x2 means (1, 3), the noise has block sums (4, 8), so coarse noise (2, 4)."""
    pyramid = Pyramid(2)
    x = torch.tensor([[0.0, 2.0, 3.0, 3.0], [0.0, 2.0, 3.0, 3.0]])
    noise = torch.tensor([[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]])
    start, end = pyramid.endpoints(x, noise, 1)
    assert_close(start, torch.tensor([[2.0, 4.0]]))
    assert_close(end, torch.tensor([[1.5, 3.5]]))
    start, end = pyramid.endpoints(x, noise, 0)
    assert_close(start, torch.tensor([[1.0, 1.0, 7 / 3, 7 / 3]] * 2))
    assert_close(end, x)


def test_one_level_is_ordinary_flow_matching():
    x, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    start, end = Pyramid(1).endpoints(x, noise, 0)
    assert torch.equal(start, noise)
    assert torch.equal(end, x)


def test_a_stage_that_follows_its_velocity_lands_where_the_next_one_starts():
    """Endpoint of the coarse stage, jump with the very noise of the fine one: the law's mean is the fine start."""
    pyramid = Pyramid(3)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 8, 8, generator=generator, dtype=torch.float64)
    zero = torch.zeros_like(x)
    _, end = pyramid.endpoints(x, zero, 1)
    start, _ = pyramid.endpoints(x, zero, 0)
    assert_close(pyramid.jump(end, zero, 0), start)


# ---- steps and configuration


def test_uniform_steps_waste_none_and_official_ones_end_with_a_thousandth():
    assert Pyramid().steps(4) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Pyramid(schedule="official").steps(3) == (0.0, 0.4995, 0.999, 1.0)
    assert Pyramid(schedule="official").steps(1) == (0.0, 1.0)
    with pytest.raises(ValueError, match="-2 steps"):
        Pyramid().steps(-2)


def test_official_training_times_are_multiples_of_a_thousandth():
    u = torch.tensor([0.0, 0.12345, 0.99999])
    # In fp32, 0.999 is off by a hundred-thousandth of what is left to 1.
    expected = torch.tensor([0.0, 0.123, 0.999], dtype=torch.float64)
    assert_close(Pyramid(schedule="official").local_time(u), expected, **EXACT)
    assert torch.equal(Pyramid().local_time(u), u)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_function_keeps_the_dtype(dtype):
    pyramid = Pyramid(2)
    x, z = torch.ones(4, 4, dtype=dtype), torch.ones(4, 4, dtype=dtype)
    results = [down(x), up(x), down_noise(z), block_noise(z, 0.2), *pyramid.endpoints(x, z, 0)]
    assert {r.dtype for r in [*results, pyramid.jump(down(x), z, 0)]} == {dtype}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"levels": 0}, "levels is 0"),
        ({"gamma": 0.5}, "gamma is 0.5"),
        ({"gamma": 0.0}, r"\(0, 1/3\]"),
        ({"shift": -1.0}, "shift is -1.0"),
        ({"schedule": "cosine"}, "'cosine'"),
        ({"levels": 2, "stage_range": (0.0, 0.7, 0.5, 1.0)}, "3 edges"),
        ({"levels": 3, "stage_range": (0.0, 0.7, 0.5, 1.0)}, "rise"),
        ({"levels": 2, "stage_range": (0.0, 0.0005, 1.0), "schedule": "official"}, "1/1000 between"),
    ],
)
def test_bad_settings_are_refused_with_the_value(setting, message):
    with pytest.raises(ValueError, match=message):
        Pyramid(**setting)


def test_levels_sizes_and_gammas_that_do_not_fit_are_refused():
    pyramid, x = Pyramid(2), torch.ones(4, 4)
    for level in (-1, 2):
        with pytest.raises(ValueError, match=f"level is {level}; .*below 2"):
            pyramid.endpoints(x, x, level)
    with pytest.raises(ValueError, match=r"level is 1; .*below 1"):
        pyramid.jump(x, torch.ones(8, 8), 1)
    with pytest.raises(ValueError, match=r"noise of 4x4 to enter from 4x4 .*twice"):
        pyramid.jump(x, x, 0)
    with pytest.raises(ValueError, match=r"noise of 4x8 for a latent of 4x4"):
        pyramid.endpoints(x, torch.ones(4, 8), 0)
    for gamma in (0.0, 0.5, -0.1):
        with pytest.raises(ValueError, match=r"\(0, 1/3\]"):
            block_noise(x, gamma)


def test_configuration_survives_json():
    pyramid = Pyramid(2, gamma=0.2, stage_range=(0.0, 0.4, 1.0), shift=2.0, schedule="official")
    assert Pyramid(**json.loads(json.dumps(dataclasses.asdict(pyramid)))) == pyramid
