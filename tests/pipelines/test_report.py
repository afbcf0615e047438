from rayramid.pipelines.report import histogram
from rayramid.pipelines.selection import Limits


def test_a_histogram_counts_kept_and_other_and_places_the_threshold():
    values = [(0.0, False), (0.5, False), (3.0, True), (4.0, True)]
    found = histogram("motion", values, Limits(1.0, 9.0), bins=4)
    assert [(bar.kept, bar.other) for bar in found.bars] == [(0, 2), (0, 0), (0, 0), (2, 0)]
    assert found.tallest == 2
    assert found.minimum_at == 0.25
    assert found.maximum_at is None


def test_equal_values_are_one_bar():
    found = histogram("black", [(0.0, True), (0.0, False)], Limits(None, 0.5))
    assert [(bar.low, bar.high, bar.kept, bar.other) for bar in found.bars] == [(0.0, 0.0, 1, 1)]
    assert found.maximum_at is None
