"""A panel's axes: which round numbers, and where values are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayramid.models.axes import MARGIN, Axes, ticks


@pytest.mark.parametrize(
    ("values", "expected"),
    [([40.6, 17.9], [0, 10, 20, 30, 40, 50]), ([-0.4, 0.3], [-0.4, -0.2, 0, 0.2, 0.4]), ([0.0], [0, 1])],
)
def test_lines_are_at_round_numbers_around_zero_and_all_values(values, expected):
    assert ticks(values) == pytest.approx(expected)


@given(st.lists(st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6), min_size=1))
def test_no_value_lies_outside_of_the_lines(values):
    marks = ticks(values)
    slack = 1e-9 * (marks[-1] - marks[0])
    assert marks[0] - slack <= min(0.0, *values)
    assert max(values) <= marks[-1] + slack
    assert 2 <= len(marks) <= 8


def test_values_lie_between_the_margins_and_upwards():
    axes = Axes(100, 20, 200, 80, first=1, last=100, ticks=[0, 1, 2])
    assert (axes.y(0), axes.y(2), axes.y(1)) == (100, 20, 60)
    assert axes.x(1) == pytest.approx(100 + 200 * MARGIN)
    assert axes.x(100) == pytest.approx(300 - 200 * MARGIN)
    logarithmic = Axes(100, 20, 200, 80, first=1, last=100, ticks=[0, 1], logarithmic=True)
    assert logarithmic.x(10) == pytest.approx(200)
