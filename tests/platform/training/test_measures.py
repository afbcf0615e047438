"""The numbers of a line of metrics, computed by hand."""

import itertools
import math

import pytest
import torch

from rayramid.models.objective import Loss
from rayramid.platform.training.feed import Share
from rayramid.platform.training.gradient_noise import NoiseTally, half_of, variance_and_signal
from rayramid.platform.training.meter import Meter
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.plan import Bookmark
from rayramid.platform.training.tally import Tally
from rayramid.platform.training.visits import Position

ALONE = Ranks(1, 0, torch.device("cpu"))


def of(*values):
    return [torch.tensor([value], dtype=torch.float64) for value in values]


def test_losses_are_averaged_by_stage_and_unit_and_by_stage_and_noise():
    tally = Tally()
    tally.add(Loss(torch.tensor([1.0, 2.0]), units=(0, 10), levels=(1, 0), times=(0.19, 0.2)))
    tally.add(Loss(torch.tensor([4.0, 9.0]), units=(10, 2), levels=(0, 0), times=(0.999, 0.3)))
    losses = tally.gather(ALONE)
    assert losses.mean == 4.0
    assert losses.table == {"0": {"2": 9.0, "10": 3.0}, "1": {"0": 1.0}}
    assert list(losses.table["0"]) == ["2", "10"]
    assert losses.noise == {"0": {"0.2": 5.5, "0.8": 4.0}, "1": {"0.0": 1.0}}


def share(tokens, flops, own, waited):
    return Share(
        (),
        (),
        damaged=(),
        units=1,
        tokens=tokens,
        flops=flops,
        own_flops=own,
        fill=tokens / 100,
        waited=waited,
        bookmark=Bookmark("p", 0, 0, Position((), ()), ()),
    )


def test_speeds_are_means_over_the_steps_since_the_last_line():
    meter = Meter(ALONE, peak=2.0)
    meter.add(share(60, 3e12, 3e12, waited=0.5), 1.0, seconds=1.5)
    meter.add(share(100, 5e12, 5e12, waited=0.0), 3.0, seconds=2.0)
    line = meter.gather()
    assert line.pop("memory_gb") > 0.05
    assert line == pytest.approx(
        {
            "gradient_norm": 2.0,
            "tokens_per_step": 80.0,
            "fill": 0.8,
            "rank_balance": 1.0,
            "tokens_per_second": 40.0,
            "seconds_per_step": 2.0,
            "wait_share": 0.125,
            "tflops_per_rank": 2.0,
            "mfu": 1.0,
        }
    )
    meter = Meter(ALONE)
    meter.add(share(60, 3e12, 3e12, waited=0.0), 1.0, seconds=1.0)
    assert "mfu" not in meter.gather()


def test_the_noise_of_a_gradient_is_unbiased():
    """Two targets whose gradients are 0 or 2, each with an even chance: the mean is 1, its variance 1/2."""
    found = [variance_and_signal(of(a), 1, of((a + b) / 2), 2) for a, b in itertools.product((0.0, 2.0), repeat=2)]
    variances, signals = zip(*found, strict=True)
    assert sum(variances) / 4 == 0.5
    assert sum(signals) / 4 == 1.0


def test_the_noise_of_unequal_parts_is_unbiased():
    """One target against three: the same chances, variance 1/3."""
    found = [
        variance_and_signal(of(a), 1, of((a + b + c) / 3), 3) for a, b, c in itertools.product((0.0, 2.0), repeat=3)
    ]
    variances, signals = zip(*found, strict=True)
    assert sum(variances) / 8 == pytest.approx(1 / 3)
    assert sum(signals) / 8 == pytest.approx(1)


def test_the_noise_ratio_is_that_of_sums_over_all_parameters_and_steps():
    noise = NoiseTally()
    assert noise.take() == {}
    # |A - G|² = 1 + 4, |G|² = 4 + 36: variance 5, signal 35; then variance 1, signal 3.
    noise.add(of(3.0, 4.0), 4, of(2.0, 6.0), 8)
    noise.add(of(3.0), 1, of(2.0), 2)
    assert noise.take() == {"gradient_noise_ratio": pytest.approx(6 / 38)}
    noise.add(of(3.0), 1, of(0.5), 2)
    assert noise.take() == {"gradient_noise_ratio": math.inf}
    assert noise.take() == {}


def test_half_of_a_step_is_as_many_forwards_on_every_rank():
    assert [half_of((1.0, 1.0, 0.0), 2, reader) for reader in (0, 1)] == [(1.0,), (1.0,)]
    assert [half_of((1.0,), 2, reader) for reader in (0, 1)] == [(1.0,), (0.0,)]
    assert half_of((1.0,), 1, 0) is None
    assert half_of((1.0, 1.0), 1, 0) == (1.0,)
