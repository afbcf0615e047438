"""Measurements summed up by hand-computed cases, and the figure drawn from them."""

import json
import re

import pytest

from rayramid.platform.ablation.figure import figure, panels
from rayramid.platform.ablation.result import Speedup, lines, speedup, sum_up
from rayramid.platform.ablation.spec import AblationSpec

SPEC = AblationSpec.model_validate(
    {
        "kind": "ablation",
        "title": "Levels",
        "question": "Are three levels faster than one?",
        "claim": {"source": "Fig. 7", "words": "Three levels are three times as fast."},
        "output": "/out",
        "runs": "/runs",
        "base": "train.yaml",
        "arms": {"one": {"model.levels": 1}, "three & more": {}},
        "tflop": 4,
        "points": [0.25, 1],
        "measure": {"loss": True, "lengths": [9]},
        "hours": 1,
    }
)


def point(tflop, frechet, right):
    return {
        "step": round(100 * tflop),
        "tflop": tflop,
        "targets": 1,
        "parameters": 10,
        "loss": frechet / 10,
        "frechet": frechet,
        "kernel": 0.1,
        "frechet_by_unit": [1.0, frechet],
        "sharpness_by_unit": [0.5, 0.25],
        "videos": 10,
        "right": {"9": dict.fromkeys(("colours", "shapes", "motions", "sharp", "persistent", "fully_right"), right)},
        "seconds": {"training": 1.0, "measuring": 2.0},
    }


FOUND = {
    "one": {0: [point(1, 8, 0), point(4, 4, 1)], 1: [point(1, 6, 2), point(4, 2, 3)]},
    "three & more": {0: [point(1, 3, 4), point(4, 1, 5)], 1: [point(1, 3, 6), point(4, 2, 9)]},
}


@pytest.fixture(scope="module")
def result():
    return json.loads(json.dumps({"spec": SPEC.model_dump(mode="json"), **sum_up(SPEC, FOUND)}))


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        ([(1, 8), (4, 2)], [(1, 4), (2, 2), (4, 1)], Speedup(2.0)),
        ([(1, 8), (4, 2)], [(1, 8), (4, 0.5)], Speedup(2.0)),
        ([(1, 8), (4, 2)], [(1, 2), (4, 1)], Speedup(4.0, at_least=True)),
        ([(1, 8), (4, 2)], [(1, 8), (4, 3)], None),
        ([(1, 8), (4, 2)], [(1, 8), (4, 2)], Speedup(1.0)),
    ],
    ids=["at a point", "between points", "from the start", "never", "the same"],
)
def test_how_much_faster_a_curve_reaches_the_end_of_another(first, other, expected):
    found = speedup(first, other)
    assert found == (expected and Speedup(pytest.approx(expected.times), expected.at_least))


def test_distances_have_the_mean_and_the_range_of_the_seeds(result):
    assert result["distances"]["frechet"]["one"] == [
        {"tflop": 1, "mean": 7, "low": 6, "high": 8},
        {"tflop": 4, "mean": 3, "low": 2, "high": 4},
    ]
    # (1, 3) reaches the mean of 3 at its first point.
    assert result["faster"]["frechet"] == {"three & more": {"times": 4, "at_least": True}}


def test_shares_are_of_the_videos_of_all_seeds(result):
    share = result["shares"]["three & more"][1]["9"]["colours"]
    assert (share["right"], share["of"], share["share"]) == (14, 20, 0.7)
    assert share["low"] < 0.7 < share["high"]


def test_every_measurement_is_kept(result):
    assert result["arms"]["one"]["seeds"]["1"][0]["frechet"] == 6
    assert result["arms"]["one"]["seconds"] == {"training": 4, "measuring": 8}
    assert result["by_unit"]["one"] == {"frechet": [1, 3], "sharpness": [0.5, 0.25]}


def test_the_lines_tell_the_last_point(result):
    said = "\n".join(lines(result))
    assert "Are three levels faster than one?" in said
    assert "three & more       1.5  (1 to 2), at least 4.0 times faster" in said


def test_the_figure_has_a_line_and_its_dots_for_every_arm_and_measure_and_the_claim(result):
    drawn = figure(result)
    titles = [panel.title for panel in panels(result)]
    assert len(titles) == 9
    texts = re.findall(r">([^<]*)</text>", drawn)
    assert {*titles, "one", "three &amp; more"} <= set(texts)
    assert any(text.startswith("The paper, Fig. 7: Three levels") for text in texts)
    # Two arms, two seeds and two points in each panel.
    assert drawn.count("<circle") == 9 * 2 * 2 * 2


def test_with_one_point_the_arms_stand_side_by_side():
    found = {arm: {seed: points[1:] for seed, points in seeds.items()} for arm, seeds in FOUND.items()}
    spec = SPEC.model_copy(update={"claim": None, "points": (1.0,)})
    result = {"spec": spec.model_dump(mode="json"), **sum_up(spec, found)}
    assert result["faster"]["frechet"] == {"three & more": None}
    drawn = figure(result)
    one, one_again, three, three_again = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)[:4]]
    assert one == one_again < three == three_again
