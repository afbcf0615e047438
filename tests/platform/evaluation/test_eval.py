"""An evaluation from a spec to its results, on a model of random weights: everything is wrong, and is told so."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rayramid.models.brief import write_brief
from rayramid.models.checkpoint import Model, load_model
from rayramid.models.errors import UserError
from rayramid.models.render import render
from rayramid.models.sprites.captions import held_out, parse, write
from rayramid.models.sprites.draw import held_out_scenes
from rayramid.models.sprites.judge.verdict import PARTS
from rayramid.models.sprites.render import render as draw
from rayramid.platform.evaluation.drift import measures_of
from rayramid.platform.evaluation.examiner import Examiner, Piece, pieces
from rayramid.platform.evaluation.results import Share, demands, lines, sum_up
from rayramid.platform.evaluation.run import evaluate
from rayramid.platform.evaluation.spec import EvalSpec
from rayramid.platform.evaluation.videos import make_videos


def spec_of(model: str, output: object, **changes: object) -> EvalSpec:
    plain = {
        "model": model,
        "output": str(output),
        "prompts": 3,
        "lengths": [5, 9],
        "curve": {"steps": [1], "prompts": 2},
        "images": 2,
        "renders": 2,
        "batch": 2,
        "workers": {"count": 1, "cpus": 0.5},
    }
    return EvalSpec.model_validate({**plain, **changes})


@pytest.fixture(scope="module")
def model(model_folder: str) -> Model:
    return load_model(model_folder)


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(9, 10, 0.5958, 0.9821), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (230, 256, 0.8553, 0.9297)],
)
def test_intervals_are_wilsons(right, of, low, high):
    assert Share(right, of).interval == pytest.approx((low, high), abs=1e-4)


def test_pieces_cover_every_scene_once_for_each_kind():
    spec = spec_of("m", "o", prompts=5, curve={"steps": [2, 4], "prompts": 3}, images=0)
    covered = [(piece.kind, piece.steps, piece.first + n) for piece in pieces(spec) for n in range(piece.count)]
    expected = [("text", None, n) for n in range(5)] + [("text", steps, n) for steps in (2, 4) for n in range(3)]
    assert sorted(covered, key=str) == sorted([*expected, ("render", None, 0), ("render", None, 1)], key=str)
    assert max(piece.count for piece in pieces(spec)) == 2
    few = [piece.count for piece in pieces(spec_of("m", "o", prompts=1))]
    assert few == [1, 1, 1, 1]


def test_videos_made_together_are_those_made_alone(model):
    briefs = [write_brief(model.card, prompt, seconds=9 / 8, seed=seed) for seed, prompt in ((1, "a"), (2, "a red b"))]
    image = np.full((64, 64, 3), 90, np.uint8)
    for images in (None, [image, image]):
        together = make_videos(model, briefs, images)
        for brief, video in zip(briefs, together, strict=True):
            alone = np.concatenate(list(render(model, brief, image_HWC=None if images is None else image)))
            assert video.shape == alone.shape == (9, 64, 64, 3)
            assert np.abs(video.astype(int) - alone).max() <= 1


def test_what_the_vae_gives_back_is_judged_and_measured(model_folder):
    cases = Examiner(spec_of(model_folder, "unused")).examine(Piece("render", 3, 2))
    assert [case.index for case in cases] == [3, 4]
    for case in cases:
        assert held_out(parse(case.caption))
        assert len(case.psnr_T) == 9
        assert 5 < min(case.psnr_T) < 40
        assert set(case.verdicts[9]) == {"fully_right", "kept", *PARTS}
    again = Examiner(spec_of(model_folder, "unused")).examine(Piece("render", 4, 1))
    assert again[0].caption == cases[1].caption
    assert again[0].psnr_T == cases[1].psnr_T


def test_drift_is_that_of_the_video_of_its_scene_and_of_what_the_vae_gives_back(model_folder):
    examiner = Examiner(spec_of(model_folder, "unused"))
    (text,), (decoded,) = examiner.examine(Piece("text", 1, 1)), examiner.examine(Piece("render", 1, 1))
    scene = next(islice(held_out_scenes(0, 64, 64, 9), 1, None))
    units = np.split(draw(scene, 9), [1])
    assert text.caption == write(scene.demand)
    assert text.drift["drawn"] == measures_of(units)
    assert text.drift["made"]["curves"]["saturation"] != text.drift["drawn"]["curves"]["saturation"]
    assert decoded.drift.keys() == {"decoded"}
    assert len(decoded.drift["decoded"]["curves"]["jump"]) == 2
    assert examiner.examine(Piece("text", 1, 1, 1))[0].drift == examiner.examine(Piece("image", 1, 1))[0].drift == {}


def test_sums_are_of_their_kind_and_length(model_folder):
    spec = spec_of(model_folder, "unused", renders=0)
    one = Examiner(spec).examine(Piece("text", 0, 1))[0]
    right = dict.fromkeys(one.verdicts[9], True)
    cases = [
        one,
        replace(one, index=1, verdicts={5: right, 9: one.verdicts[9]}),
        replace(one, piece=Piece("text", 0, 1, 1), drift={}, verdicts={5: right, 9: right}),
        replace(one, piece=Piece("image", 0, 1), drift={}, verdicts={5: right, 9: {**right, "fully_right": False}}),
    ]
    found = sum_up(spec, cases)
    assert "vae" not in found
    assert found["text"]["5"]["fully_right"] == {"share": 0.5, "low": 0.0945, "high": 0.9055, "right": 1, "of": 2}
    assert found["text"]["9"]["fully_right"]["right"] == 0
    assert (found["fully_right"], set(found["parts"])) == (0.5, set(PARTS))
    assert found["curve"]["1"]["9"]["fully_right"]["of"] == 1
    assert list(found["curve"]) == ["1", "its own"]
    assert found["curve"]["its own"] == found["text"]
    counts, *passing = demands(one.caption)
    assert found["by_demand"].keys() == {counts, *passing}
    assert found["by_demand"][counts]["5"] == {"fully_right": found["text"]["5"]["fully_right"]}
    assert (found["images"]["9"]["kept"]["right"], found["images"]["9"]["fully_right"]["right"]) == (1, 0)
    assert found["drift"].keys() == {"made", "drawn"}
    assert found["drift"]["drawn"]["videos"] == 2
    assert any("50.0%  (9.5% to 90.5%, 1 of 2)" in line for line in lines(found))


def test_captions_are_told_apart_by_how_many_shapes_they_name_and_whether_one_passes():
    assert demands("a red circle grows on a grey background") == ("one shape",)
    passing = "a red circle moves quickly left behind a blue square and a green cross stands still on a grey background"
    assert demands(passing) == ("three shapes", "passing")


def test_an_evaluation_on_ray_leaves_its_numbers_and_where_they_came_from(ray_cluster, model_folder, tmp_path):
    spec = spec_of(model_folder, tmp_path / "eval")
    told: list[tuple[int, int]] = []
    found = evaluate(spec, "rayramid eval spec.yaml", on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (9, 9)
    written = json.loads((tmp_path / "eval/results.json").read_text())
    assert written == json.loads(json.dumps(found))
    assert written["command"] == "rayramid eval spec.yaml"
    assert (written["seed"], written["spec"]["prompts"]) == (0, 3)
    assert written["machine"]["cpus"] >= 1
    assert written["text"]["9"]["fully_right"]["of"] == 3
    assert written["vae"]["psnr"] == pytest.approx(np.mean(written["vae"]["psnr_by_frame"]), abs=0.01)
    assert {origin: each["videos"] for origin, each in written["drift"].items()} == {
        "made": 3,
        "drawn": 3,
        "decoded": 2,
    }
    assert sum(line.startswith("drift of ") for line in lines(written)) == 3
    rows = [json.loads(line) for line in (tmp_path / "eval/cases.jsonl").read_text().splitlines()]
    assert len(rows) == 9
    assert all("fully_right" in row["wrong"]["9"] for row in rows if row["kind"] == "text")
    assert len(list(Path(tmp_path / "eval/videos").glob("*.webp"))) == 3 + 2 + 2


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="not a rayramid model"):
        evaluate(spec_of(str(tmp_path / "none"), tmp_path / "eval"), "")
