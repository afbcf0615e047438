"""Bins: by hand, and laws that hold for any items."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from rayramid.platform.training.packing import cheapest_with_room, first_fit_decreasing

ITEMS = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 1000)), max_size=60)


def test_first_fit_by_hand():
    assert first_fit_decreasing([3, 7, 5, 2, 3], budget=10) == [[1, 0], [2, 4, 3]]
    assert first_fit_decreasing([10] * 70, budget=10) == [[i] for i in range(70)]
    assert first_fit_decreasing([], budget=10) == []


def test_the_cheapest_with_room_by_hand():
    # 6 and 5 open the bins, 4 joins the cheaper one, 3 finds room in the other alone, and 2 in none.
    bins, waiting = cheapest_with_room([6, 5, 4, 3, 2], [60, 10, 10, 10, 10], bins=2, budget=9)
    assert (bins, waiting) == ([[0, 3], [1, 2]], [4])


def test_costs_come_out_alike_where_tokens_alone_would_not_tell():
    # Four dear and four cheap items of one size: each bin gets one of either kind.
    bins, waiting = cheapest_with_room([5] * 8, [9, 9, 9, 9, 1, 1, 1, 1], bins=4, budget=10)
    assert waiting == []
    assert [sorted(members) for members in bins] == [[0, 4], [1, 5], [2, 6], [3, 7]]


@given(ITEMS)
def test_every_item_is_in_one_bin_and_no_bin_overflows(items):
    sizes = [size for size, _ in items]
    bins = first_fit_decreasing(sizes, budget=50)
    assert sorted(chain(*bins)) == list(range(len(items)))
    assert all(sum(sizes[i] for i in members) <= 50 for members in bins)


@given(ITEMS, st.integers(1, 20))
def test_every_item_is_in_one_bin_or_waits_and_no_bin_overflows(items, count):
    sizes, costs = [size for size, _ in items], [float(cost) for _, cost in items]
    bins, waiting = cheapest_with_room(sizes, costs, bins=count, budget=50)
    assert sorted([*chain(*bins), *waiting]) == list(range(len(items)))
    rooms = [50 - sum(sizes[i] for i in members) for members in bins]
    assert min(rooms) >= 0
    # What waits would not fit where the rest is.
    assert all(sizes[i] > max(rooms) for i in waiting)
