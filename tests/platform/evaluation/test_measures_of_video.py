"""Measures of frames and latents without weights, on pictures whose values are computed by hand."""

import numpy as np
import pytest
import torch

from rayramid.platform.evaluation.appearance import appearance, curves, fine_detail, saturation, sharpness
from rayramid.platform.evaluation.latent_statistics import Channels, Reference, latent_curves
from rayramid.platform.evaluation.motion import boundary_jump, motion, motion_energy, steadiness, still_share


def flat(*values, side=8):
    """Grey frames [T, side, side, 3] of these values."""
    return np.stack([np.full((side, side, 3), value, dtype=np.uint8) for value in values])


def grey(picture_HW):
    return np.repeat(np.asarray(picture_HW, dtype=np.uint8)[None, :, :, None], 3, axis=-1)


def test_sharpness_is_the_variance_of_the_laplacian():
    # The borders are mirrored, so a board of 0 and 1 has the Laplacian 4 on zeros and -4 on ones everywhere.
    board = np.indices((8, 8)).sum(axis=0) % 2
    assert sharpness(grey(board)) == 16.0
    assert sharpness(flat(0, 255)) == 0.0
    assert sharpness(np.concatenate([grey(board), flat(7)])) == 8.0


def test_fine_detail_is_the_share_of_power_above_half_of_the_highest_frequency():
    columns = np.arange(16)
    slow = 128 + 100 * np.cos(2 * np.pi * columns / 8) * np.ones((16, 1))
    fast = 128 + 100 * np.cos(2 * np.pi * columns / 2) * np.ones((16, 1))
    assert fine_detail(grey(np.round(slow))) == pytest.approx(0, abs=1e-4)
    assert fine_detail(grey(np.round(fast))) == pytest.approx(1)
    assert fine_detail(flat(9)) == 0.0
    # White noise: what lies outside of a circle of radius 1/4 in the unit square.
    noise = np.random.default_rng(0).integers(0, 256, (64, 64))
    assert fine_detail(grey(noise)) == pytest.approx(1 - np.pi / 16, abs=0.02)


def test_saturation_is_that_of_the_colour_wheel():
    frame = np.zeros((1, 1, 4, 3), dtype=np.uint8)
    frame[0, 0] = [(200, 50, 100), (90, 90, 90), (0, 0, 0), (255, 0, 0)]
    assert saturation(frame) == pytest.approx((0.75 + 0 + 0 + 1) / 4)


def test_colours_are_means_and_deviations_within_frames():
    frames = np.zeros((2, 1, 2, 3), dtype=np.uint8)
    frames[0, 0, :, 0] = 100, 200
    frames[1, 0, :, 0] = 30, 30
    look = appearance(frames)
    assert (look["red_mean"], look["red_deviation"]) == (90.0, 25.0)
    assert (look["green_mean"], look["blue_deviation"]) == (0.0, 0.0)


def test_curves_tell_how_far_colours_moved_since_the_first_unit():
    second = flat(100, 100)
    second[..., 0] += 30
    found = curves([flat(100), second, flat(110)])
    assert found["red_mean"] == [100, 130, 110]
    assert found["colour_shift"] == pytest.approx([0, np.sqrt(900 / 3), 10])
    assert found["contrast_shift"] == [0, 0, 0]
    assert found["sharpness"] == [0, 0, 0]


def test_steadiness_and_energy_are_those_of_neighbouring_frames():
    frames = flat(0, 51, 51, 0)
    assert steadiness(frames) == pytest.approx(1 - 34 / 255)
    assert motion_energy(frames) == pytest.approx(0.2**2 * 2 / 3)
    assert still_share(frames) == pytest.approx(1 / 3)
    assert (steadiness(flat(5)), motion_energy(flat(5)), still_share(flat(5))) == (1.0, 0.0, 0.0)


def test_a_boundary_jump_is_the_change_between_units_by_the_change_within():
    units = [flat(0), flat(6, 8, 10), flat(20, 22, 24)]
    assert boundary_jump(units) == (6 + 10) / 2 / 2
    assert motion(units)["boundary_jump"] == 4.0
    assert boundary_jump([flat(0), flat(9)]) is None
    assert boundary_jump([flat(0, 0), flat(9, 9)]) is None
    assert boundary_jump([flat(0, 3, 6)]) is None


def test_channels_are_those_of_all_latents_together():
    latents = [torch.tensor([[1.0, 3.0], [0.0, 0.0]]).view(2, 1, 1, 2), torch.tensor([[5.0], [2.0]]).view(2, 1, 1, 1)]
    channels = Channels.of(latents)
    # The first counts as much as the second, though it is larger.
    assert channels.mean_C.tolist() == [3.5, 1.0]
    assert channels.std_C.tolist() == pytest.approx([np.sqrt((1 + 9) / 4 + 25 / 2 - 3.5**2), 1.0])


def test_latents_are_measured_in_standard_deviations_of_the_data():
    first = torch.tensor([[0.0, 2.0], [-1.0, 1.0]]).view(2, 1, 1, 2)
    later = torch.tensor([[0.0, 8.0], [0.0, 8.0]]).view(2, 1, 1, 2)
    reference = Reference.of([torch.cat([first, later], dim=1)])
    found = latent_curves([first + 1, later, later / 2], reference)
    assert found["latent_shift"] == pytest.approx([1, 0, 0.5])
    assert found["latent_spread"] == pytest.approx([1, 1, 0.5])
    # The whole video in one unit is compared with later latents; images alone have only first ones.
    assert latent_curves([torch.cat([later, later], dim=1)], reference)["latent_shift"] == [0]
    assert latent_curves([first, first], Reference.of([first]))["latent_spread"] == pytest.approx([1, 1])
