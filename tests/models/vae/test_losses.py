import math

import pytest
import torch

from rayramid.models.vae.losses import (
    LARGEST_WEIGHT,
    adaptive_weight,
    deceiving_loss,
    hinge_loss,
    reconstruction_error,
)
from rayramid.models.vae.posterior import posterior_kl


def clips(*values):
    """One clip per list, [B, 1, 1, 1, n]."""
    return torch.tensor(values, dtype=torch.float64).view(len(values), 1, 1, 1, -1)


def test_the_reconstruction_error_is_a_mean_of_each_clip():
    frames, target = clips([1, 0], [0, 0]), clips([0, 0], [0.5, -1])
    assert reconstruction_error(frames, target, "l1").tolist() == [0.5, 0.75]
    assert reconstruction_error(frames, target, "l2").tolist() == [0.5, 0.625]


def test_the_deceiving_loss_is_minus_the_mean_score():
    assert deceiving_loss(clips([1, 3], [-1, 0])).tolist() == [-2, 0.5]


def test_the_hinge_loss_counts_what_lies_within_the_margin():
    real, fake = clips([2, 0]), clips([-3, 0.5])
    # Real: max(0, 1-2)=0, max(0, 1-0)=1; fake: max(0, 1-3)=0, max(0, 1+0.5)=1.5.
    assert hinge_loss(real, fake).tolist() == [0.5 * (0.5 + 0.75)]


def test_the_adaptive_weight_is_the_ratio_of_the_gradients_norms():
    faithful, deceiving = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    weights = adaptive_weight(faithful, deceiving)
    assert weights.tolist() == pytest.approx([5 / 2.0001, 0])
    assert adaptive_weight(torch.tensor([[1e9]]), torch.tensor([[0.0]])).item() == LARGEST_WEIGHT


def test_the_divergence_of_a_posterior_is_that_of_two_gaussians():
    # Mean 2, variance e: (4 + e - 1 - 1) / 2 for each of two values.
    moments = torch.tensor([2.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1, 1).expand(1, 2, 2, 1, 1)
    assert posterior_kl(moments).item() == pytest.approx(2 * (4 + math.e - 2) / 2)
