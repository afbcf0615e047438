"""Windows, timesteps, steps, block noise and jumps of the published scheduler.

Golden files count stages from the noisiest: their stage `i` is level `levels - 1 - i`. Their velocity is start - end,
ours end - start; their local ratio is 1 - t.
"""

import re

import pytest
import torch

from rayramid.models.pyramid import block_noise


def close(actual, expected, within):
    torch.testing.assert_close(torch.as_tensor(actual, dtype=torch.float64), expected.double(), rtol=0, atol=within)


@pytest.mark.golden("scheduler")
def test_windows(golden, case, official_pyramid):
    pyramid = official_pyramid(golden.cases[case]["config"])
    by_stage = pyramid.windows[::-1]
    close([1 - start for start, _ in by_stage], golden[f"{case}.start_sigmas"], 1e-7)
    close([1 - end for _, end in by_stage], golden[f"{case}.end_sigmas"], 1e-7)
    close([1 - start for start, _ in pyramid.uncorrected[::-1]], golden[f"{case}.ori_start_sigmas"], 1e-7)


@pytest.mark.golden("scheduler")
def test_timestep_tables(golden, case, official_pyramid):
    pyramid = official_pyramid(golden.cases[case]["config"])
    points = golden[f"{case}.sample_points"].double()
    for stage in range(pyramid.levels):
        level = pyramid.levels - 1 - stage
        prefix = f"{case}.stage{stage}"
        times = pyramid.local_time((points + 0.5) / 1000)
        close(1 - times, golden[f"{prefix}.sigmas_per_stage"], 1e-12)
        # fp32 has steps of 6e-5 at 1000.
        close(pyramid.timestep(level, times), golden[f"{prefix}.timesteps_per_stage"], 1e-4)


@pytest.mark.golden("scheduler")
def test_steps(golden, case, official_pyramid):
    pyramid = official_pyramid(golden.cases[case]["config"])
    tables = [key for key in golden.tensors if re.fullmatch(rf"{case}\.stage\d+\.set_timesteps_\d+\.sigmas", key)]
    assert len(tables) >= pyramid.levels
    for key in tables:
        stage, count = map(int, re.findall(r"\.stage(\d+)\.set_timesteps_(\d+)\.", key)[0])
        times = torch.tensor(pyramid.steps(count), dtype=torch.float64)
        close(1 - times, golden[key], 1e-12)
        told = pyramid.timestep(pyramid.levels - 1 - stage, times[:-1])
        close(told, golden[key.replace("sigmas", "timesteps")], 1e-4)


@pytest.mark.golden("scheduler")
def test_euler_steps(golden, case, official_pyramid):
    pyramid = official_pyramid(golden.cases[case]["config"])
    if f"{case}.euler.x0" not in golden:
        pytest.skip("no Euler steps are stored")
    first, second, last = pyramid.steps(2)
    x0, v = golden[f"{case}.euler.x0"], golden[f"{case}.euler.v"]
    x1 = x0 - (second - first) * v
    golden.check(x1, f"{case}.euler.x1", within=1e-6)
    golden.check(x1 - (last - second) * v, f"{case}.euler.x2", within=1e-6)


@pytest.mark.golden("scheduler")
def test_jump_coefficients(golden, case, official_pyramid):
    """A jump of ones without noise, and of zeros with noise whose blocks have no mean."""
    pyramid = official_pyramid(golden.cases[case]["config"])
    z = torch.tensor([[1.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    levels = range(pyramid.levels - 2, -1, -1)
    close([pyramid.jump(one, 0 * z, k)[0, 0] for k in levels], golden[f"{case}.renoise_alpha"], 1e-7)
    beta = [pyramid.jump(zero, z, k)[0, 0] / block_noise(z, pyramid.gamma)[0, 0] for k in levels]
    close(beta, golden[f"{case}.renoise_beta"], 1e-7)


@pytest.mark.golden("renoise")
def test_law_of_block_noise(golden, case, ordinary_noise):
    """Ours has the stored covariance, and the stored sample is one that ours can draw."""
    gamma = golden.cases[case]["gamma"]
    b = block_noise(torch.eye(4, dtype=torch.float64).reshape(4, 2, 2), gamma).reshape(4, 4)
    close(b.T @ b, golden[f"{case}.cov"], 1e-7)
    stored = golden[f"{case}.block_noise"]
    golden.check(block_noise(ordinary_noise(stored, gamma), gamma), f"{case}.block_noise", within=1e-6)


@pytest.mark.golden("renoise")
def test_jumps_with_the_stored_noise(golden, case, official_pyramid, ordinary_noise):
    pyramid = official_pyramid(golden.cases[case]["scheduler"])
    x = golden[f"{case}.low"]
    golden.check(x, f"{case}.after.0", within=1e-6)
    for stage in range(1, pyramid.levels):
        z = ordinary_noise(golden[f"{case}.jump{stage}.block_noise"], pyramid.gamma)
        x = pyramid.jump(x, z, pyramid.levels - 1 - stage)
        golden.check(x, f"{case}.after.{stage}", within=1e-6)
