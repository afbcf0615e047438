"""The moving average by hand."""

import torch
from torch import nn

from rayramid.platform.training.ema import EMA


def test_average_moves_faster_at_the_start_and_then_by_its_decay():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, decay=0.5)
    nn.init.ones_(model.weight)
    ema.update(1)  # keeps 2/11
    torch.testing.assert_close(ema.average["weight"].item(), 9 / 11)
    ema.update(1000)  # keeps 1/2
    torch.testing.assert_close(ema.average["weight"].item(), 10 / 11)


def test_applied_lends_the_average_to_the_model_and_takes_it_back():
    model = nn.Linear(2, 2)
    ema = EMA(model, decay=0.9)
    average = model.weight.detach().clone()
    nn.init.constant_(model.weight, 7.0)
    with ema.applied():
        assert torch.equal(model.weight, average)
    assert torch.equal(model.weight, torch.full((2, 2), 7.0))
    assert torch.equal(ema.average["weight"], average)
