"""What the docs say of the ablations is what their results and specs say."""

import json
from pathlib import Path

import pytest

from rayramid.platform.ablation.result import lines, sum_up
from rayramid.platform.spec import load_spec

ROOT = Path(__file__).parents[1]
SPECS = sorted(path for path in (ROOT / "infra/specs/ablations").glob("*.yaml") if path.stem != "train")
RESULTS = sorted((ROOT / "docs/results/ablations").glob("*.json"))
PAGE = (ROOT / "docs/ablations.md").read_text(encoding="utf-8")


@pytest.fixture(params=RESULTS, ids=lambda path: path.stem)
def name(request):
    return request.param.stem


@pytest.fixture
def result(name):
    return json.loads((ROOT / "docs/results/ablations" / f"{name}.json").read_text(encoding="utf-8"))


def test_a_result_tells_what_made_it(name, result):
    assert result["command"] == f"rayramid ablate infra/specs/ablations/{name}.yaml"
    assert len(result["revision"]) >= 7
    assert {"processor", "cpus", "torch"} <= result["machine"].keys()
    assert "/" not in json.dumps([arm["seeds"] for arm in result["arms"].values()])


def test_a_result_is_of_the_spec_that_ships(name, result):
    spec = load_spec(ROOT / "infra/specs/ablations" / f"{name}.yaml", kind="ablation")
    assert result["spec"] == json.loads(json.dumps(spec.model_dump(mode="json", exclude={"output", "runs"})))
    assert list(result["arms"]) == list(spec.arms)
    for arm in result["arms"].values():
        assert [int(seed) for seed in arm["seeds"]] == list(spec.seeds)
        for points in arm["seeds"].values():
            assert [point["tflop"] for point in points] == pytest.approx(
                [share * spec.tflop for share in spec.points], rel=0.05
            )


def test_its_sums_are_those_of_its_measurements(name, result):
    spec = load_spec(ROOT / "infra/specs/ablations" / f"{name}.yaml", kind="ablation")
    found = {arm: {int(seed): points for seed, points in each["seeds"].items()} for arm, each in result["arms"].items()}
    sums = json.loads(json.dumps(sum_up(spec, found)))
    assert {key: result[key] for key in sums} == sums


def test_the_page_shows_its_lines_and_its_figure(name, result):
    assert "\n".join(f"    {line}".rstrip() for line in lines(result)) in PAGE
    assert f"(pictures/ablation-{name}.svg)" in PAGE


def test_the_page_names_every_ablation_and_every_one_has_a_result():
    for path in SPECS:
        assert f"rayramid ablate infra/specs/ablations/{path.name}" in PAGE
    assert {path.stem for path in SPECS} == {path.stem for path in RESULTS}
