"""Ablations planned: settings, steps that follow from operations, and what is left to do."""

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayramid.models.errors import UserError
from rayramid.platform.ablation.plan import Mark, Piece, dotted, marks, overrides, pieces, run_of, training_of
from rayramid.platform.ablation.spec import AblationSpec
from rayramid.platform.spec import load_spec
from rayramid.platform.training.model import configure
from rayramid.platform.training.spec.train import TrainSpec

TERA = 1e12
SPECS = [
    path for path in sorted((Path(__file__).parents[3] / "infra/specs/ablations").iterdir()) if path.stem != "train"
]


def ablation(**changes):
    fields = {
        "kind": "ablation",
        "title": "Levels",
        "question": "More?",
        "output": "/out",
        "runs": "/runs",
        "base": "train.yaml",
        "arms": {"one": {"model.levels": 1}, "three": {}},
        "tflop": 1,
        "hours": 1,
    }
    return AblationSpec.model_validate(fields | changes)


def base(**changes):
    phase = {"name": "only", "data": ["/data"], "steps": 9} | changes.pop("phase", {})
    fields = {"kind": "train", "output": "/base", "model": {"preset": "tiny"}, "phases": [phase]}
    return TrainSpec.model_validate(fields | changes)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_specs_that_ship_have_arms_that_differ(path):
    spec = load_spec(path, kind="ablation")
    runs = []
    for arm in spec.arms:
        base = load_spec(path.parent / spec.base, overrides(spec, arm), kind="train")
        run = run_of(spec, base, arm, 0)
        configure(run.model)
        runs.append(run)
    assert all(one != other for one, other in combinations(runs, 2))


def test_settings_are_paths_whether_written_as_paths_or_nested():
    nested = {"model": {"levels": 1, "gamma": 0.2}, "phases.0": {"data": ["a"]}, "ema": 0.9, "optimizer": {}}
    assert dotted(nested) == {
        "model.levels": 1,
        "model.gamma": 0.2,
        "phases.0.data": ["a"],
        "ema": 0.9,
        "optimizer": {},
    }


def test_an_arm_has_the_settings_of_all_arms_and_its_own_above_them():
    spec = ablation(settings={"model.levels": 2, "ema": 0.5}, arms={"a": {"model": {"levels": 1}}, "b": {}})
    assert overrides(spec, "a") == ["model.levels=1", "ema=0.5"]
    assert overrides(spec, "b") == ["model.levels=2", "ema=0.5"]


def test_a_run_is_measured_behind_the_last_step_that_its_budget_pays_for():
    steps = [(0.5 * TERA, 3)] * 10
    assert marks(steps, [1 * TERA, 1.4 * TERA, 2 * TERA]) == [Mark(2, 1.0, 6), Mark(2, 1.0, 6), Mark(4, 2.0, 12)]
    assert marks(steps, [0.1 * TERA]) == [Mark(1, 0.5, 3)]


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=4), st.lists(st.floats(0.01, 1), min_size=1, max_size=30))
def test_no_budget_is_exceeded_and_none_left_that_would_pay_for_another_step(budgets, costs):
    budgets = sorted(budgets)
    steps = [(cost * TERA, 1) for cost in costs] * 600
    for mark, budget in zip(marks(steps, [each * TERA for each in budgets]), budgets, strict=True):
        following = steps[mark.step][0] / TERA
        assert mark.tflop <= budget + 1e-9 or mark.step == 1
        assert mark.tflop + following > budget - 1e-9


def test_what_was_measured_is_not_done_again_and_a_run_of_two_arms_is_one_piece():
    first, last = Mark(2, 1.0, 6), Mark(4, 2.0, 12)
    runs = {("one", 0): [first, last], ("three", 0): [first, last]}
    arms = {("one", 0): ["one"], ("three", 0): ["three", "blocky"]}
    done = {("one", 0, first), ("one", 0, last), ("three", 0, first), ("blocky", 0, last)}
    left = pieces(runs, arms, lambda arm, seed, mark: (arm, seed, mark) in done)
    assert left == [Piece("three", 0, first, ("blocky",)), Piece("three", 0, last, ("three",))]


def test_arms_that_differ_in_sampling_alone_share_a_run_and_seeds_do_not():
    spec = ablation()
    plain = run_of(spec, base(), "one", 0)
    blocky = run_of(spec, base(model={"preset": "tiny", "renoise": False}, sampling={"guidance": 2}), "one", 0)
    assert blocky.output == plain.output
    assert training_of(blocky) == training_of(plain)
    assert blocky.model.renoise is False
    assert run_of(spec, base(), "one", 1).output != plain.output
    assert run_of(spec, base(model={"preset": "tiny", "levels": 1}), "one", 0).output != plain.output


def test_the_weights_of_every_point_stay():
    assert run_of(ablation(), base(checkpoints={"every": 7}), "one", 0).checkpoints.keep_last > 1000


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"phase": {"schedule": {"kind": "cosine"}}}, "must be constant"),
        ({"workers": {"count": 2}}, "2 workers"),
        ({"phases": [{"name": name, "data": ["/d"], "steps": 1} for name in "ab"]}, "2 phases"),
    ],
)
def test_a_base_whose_points_would_not_be_runs_of_their_own_is_refused(changes, named):
    with pytest.raises(UserError, match=named):
        run_of(ablation(), base(**changes), "one", 0)


@pytest.mark.parametrize("points", [[], [0.5], [0.5, 0.2, 1], [0, 1], [0.5, 0.5, 1]])
def test_points_rise_to_the_end(points):
    with pytest.raises(ValidationError, match="points"):
        ablation(points=points)
