import numpy as np

from rayramid.pipelines.report import histogram, nearest
from rayramid.pipelines.selection import Limits


def test_a_histogram_counts_kept_and_other_and_places_the_threshold():
    values, kept = np.array([0.0, 0.5, 3.0, 4.0]), np.array([False, False, True, True])
    found = histogram("motion", values, kept, Limits(1.0, 9.0), bins=4)
    assert [(bar.kept, bar.other) for bar in found.bars] == [(0, 2), (0, 0), (0, 0), (2, 0)]
    assert found.tallest == 2
    assert found.minimum_at == 0.25
    assert found.maximum_at is None


def test_equal_values_are_one_bar():
    found = histogram("black", np.zeros(2), np.array([True, False]), Limits(None, 0.5))
    assert [(bar.low, bar.high, bar.kept, bar.other) for bar in found.bars] == [(0.0, 0.0, 1, 1)]
    assert found.maximum_at is None


def test_the_clips_nearest_to_a_threshold_are_shown_on_either_side():
    values = np.array([0.1, 0.9, np.nan, 0.45, 0.5, 0.7])
    assert nearest(values, 0.5, above=True, count=2) == ([4, 5], [3, 0])
    assert nearest(values, 0.5, above=False, count=2) == ([4, 3], [5, 1])
