"""How videos change from unit to unit, by hand."""

import numpy as np
import pytest

from rayramid.platform.evaluation.drift import lines, measures_of, sum_up


def flat(*values):
    """Grey frames [T, 4, 4, 3] of these values."""
    return np.stack([np.full((4, 4, 3), value, np.uint8) for value in values])


def test_every_unit_has_its_motion_flicker_and_the_jump_into_it():
    found = measures_of([flat(0), flat(51, 51, 102), flat(0, 0)])
    assert found["curves"]["jump"] == [None, pytest.approx(51 / 255), pytest.approx(102 / 255)]
    assert found["curves"]["flicker"] == [None, pytest.approx(51 / 255 / 2), pytest.approx(0)]
    assert found["curves"]["motion_energy"] == [None, pytest.approx(0.2**2 / 2), 0]
    assert found["curves"]["colour_shift"] == [0, 68, 0]
    assert found["whole"]["boundary_jump"] == pytest.approx((51 + 102) / 2 / (51 / 3))


def test_means_have_their_errors_and_know_what_is_missing():
    one, other = measures_of([flat(0), flat(10, 20)]), measures_of([flat(0), flat(30, 30), flat(1, 2)])
    found = sum_up([one, other])
    assert found["videos"] == 2
    shift = found["curves"]["colour_shift"]
    # The third unit is not there in both. The means of the second are 15 and 30.
    assert shift["mean"] == [0, 22.5]
    assert shift["error"] == [0, pytest.approx(np.std([15, 30], ddof=1) / np.sqrt(2))]
    assert found["curves"]["jump"]["mean"][0] is None
    assert found["whole"]["boundary_jump"] == {"mean": pytest.approx(30), "error": pytest.approx(29)}
    assert sum_up([one])["curves"]["colour_shift"]["error"] == [None, None]


def test_people_are_shown_some_of_many_units():
    found = sum_up([measures_of([flat(0), *(flat(unit, unit + 1) for unit in range(20))])])
    shown = lines(found)
    assert shown[0].split() == ["by", "unit", "0", "3", "6", "9", "11", "14", "17", "20"]
    assert next(line for line in shown if "jump " in line).split()[1] == "–"
