"""Gaussians that add up, the Fréchet distance and the kernel distance, by hand and by law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rayramid.models import frechet
from rayramid.models.frechet import Gaussian, frechet_distance, kernel_distance

values = st.floats(-100, 100, width=32)


def same(one: Gaussian, other: Gaussian) -> bool:
    return one.count == other.count and all(
        np.allclose(a, b, rtol=1e-9, atol=1e-7)
        for a, b in ((one.mean_D, other.mean_D), (one.scatter_DD, other.scatter_DD))
    )


def test_the_gaussian_of_three_items():
    found = Gaussian.of(np.array([[0, 0], [2, 0], [1, 3]], np.uint8))
    assert found.count == 3
    assert found.mean_D.tolist() == [1, 1]
    assert found.covariance_DD.tolist() == [[1, 0], [0, 3]]
    assert Gaussian.of(np.array([[5.0]])).covariance_DD.tolist() == [[0]]


@given(
    arrays(np.float32, st.tuples(st.integers(1, 12), st.just(3)), elements=values),
    st.lists(st.integers(0, 12), max_size=3),
    st.randoms(use_true_random=False),
)
def test_parts_in_any_order_add_up_to_the_whole(items, cuts, random):
    parts = [Gaussian.of(part) for part in np.split(items, sorted(min(cut, len(items)) for cut in cuts)) if len(part)]
    random.shuffle(parts)
    assert same(sum(parts, Gaussian.empty(3)), Gaussian.of(items))


def test_means_far_from_zero_cost_no_digits():
    items = np.random.default_rng(0).standard_normal((1000, 2))
    far = sum((Gaussian.of(part + 1e6) for part in np.split(items, 10)), Gaussian.empty(2))
    assert far.covariance_DD == pytest.approx(Gaussian.of(items).covariance_DD, rel=1e-8)


def test_in_one_dimension_the_distance_is_that_of_means_and_deviations():
    # Means 1 and 4, deviations 1 and 3: (4 - 1)² + (3 - 1)².
    one, other = Gaussian.of(np.array([[0.0], [1], [2]])), Gaussian.of(np.array([[1.0], [4], [7]]))
    assert frechet_distance(one, other) == pytest.approx(9 + 4)


def test_correlated_gaussians_have_the_distance_by_hand():
    # C1 = [[2, 1], [1, 2]] has the eigenvalues 3 and 1, C2 is the identity: (√3 - 1)² + (1 - 1)².
    zero = np.zeros(2)
    one, other = Gaussian(2, zero, np.array([[2.0, 1], [1, 2]])), Gaussian(2, zero, np.eye(2))
    assert frechet_distance(one, other) == pytest.approx((np.sqrt(3) - 1) ** 2)


@given(arrays(np.float32, (6, 4), elements=values), arrays(np.float32, (4, 4), elements=values))
def test_the_distance_is_symmetric_and_zero_to_itself_even_if_singular(one, other):
    a, b = Gaussian.of(one), Gaussian.of(other)
    size = 1 + np.trace(a.covariance_DD) + np.trace(b.covariance_DD)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6, abs=1e-6 * size)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6 * size)


def test_the_kernel_distance_by_hand():
    # k(x, y) = (xy + 1)³ for one feature: within {0, 1} it is 1, within {1, 2} 27; across 1, 1, 8, 27.
    assert kernel_distance(np.array([[0], [1]]), np.array([[1], [2]])) == 1 + 27 - 2 * (1 + 1 + 8 + 27) / 4


def test_the_kernel_distance_in_pieces_is_that_of_the_whole(monkeypatch):
    draw = np.random.default_rng(0)
    one, other = draw.standard_normal((7, 3)), draw.standard_normal((5, 3)) + 1
    whole = kernel_distance(one, other)
    monkeypatch.setattr(frechet, "ROWS", 2)
    assert kernel_distance(one, other) == pytest.approx(whole)


def test_the_kernel_distance_has_no_bias():
    draw = np.random.default_rng(0)
    found = [kernel_distance(draw.standard_normal((5, 2)), draw.standard_normal((5, 2))) for _ in range(1000)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    assert min(found) < 0


def test_too_few_items_are_refused():
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        Gaussian.of(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="both sides"):
        frechet_distance(Gaussian.of(np.zeros((2, 3))), Gaussian.empty(3))
    with pytest.raises(ValueError, match="here are 1 and 2"):
        kernel_distance(np.zeros((1, 3)), np.zeros((2, 3)))
