"""Learning rates by hand, the split of parameters, and non-finite gradients."""

import math

import pytest
import torch
from torch import nn

from rayramid.platform.training.optimizer import build_optimizers, clip_gradients, learning_rate, set_learning_rate
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.spec.optimizer import Optimizer


def phase(**schedule):
    return Phase(name="p", data=("/d",), steps=10, learning_rate=2.0, schedule=schedule)


def test_warm_up_rises_to_the_peak():
    assert [learning_rate(phase(warmup=4), step) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_linear_and_cosine_fall_to_the_final_factor():
    linear = phase(kind="linear", final=0.5, warmup=2)
    assert [learning_rate(linear, step) for step in (2, 6)] == [2.0, 1.5]
    cosine = phase(kind="cosine", final=0.1)
    assert learning_rate(cosine, 0) == 2.0
    assert learning_rate(cosine, 5) == pytest.approx(2 * 0.55)
    assert learning_rate(cosine, 9) == pytest.approx(2 * (0.1 + 0.45 * (1 + math.cos(0.9 * math.pi))))


def model():
    return nn.ModuleDict({"into": nn.Linear(4, 4), "block": nn.Linear(4, 4), "out": nn.Linear(4, 2)})


def test_weight_decay_falls_on_matrices_alone():
    (optimizer,) = build_optimizers(model(), [], Optimizer(weight_decay=0.3))
    decays = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {2: 0.3, 1: 0.0}


def test_muon_takes_the_matrices_of_the_blocks():
    net = model()
    adamw, muon = build_optimizers(net, [net["block"]], Optimizer(kind="muon", muon_learning_rate=5.0))
    assert [p is net["block"].weight for group in muon.param_groups for p in group["params"]] == [True]
    assert sum(len(group["params"]) for group in adamw.param_groups) == 5
    set_learning_rate([adamw, muon], 0.1)
    assert {group["lr"] for group in adamw.param_groups} == {0.1}
    assert [group["lr"] for group in muon.param_groups] == [0.5]


def test_clipping_returns_the_norm_before():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, 1.0) == 5.0
    assert parameters[1].grad.item() == pytest.approx(0.8, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_told(bad):
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, bad])
    assert not math.isfinite(clip_gradients([parameter], 1.0))
