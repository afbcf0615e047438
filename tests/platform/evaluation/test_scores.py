"""Results of VBench and EvalCrafter, read back."""

import json

import pytest
from typer.testing import CliRunner

from rayramid.models.errors import UserError
from rayramid.platform.cli import app
from rayramid.platform.evaluation.suites import published
from rayramid.platform.evaluation.suites.scores import of_evalcrafter, of_vbench, read_scores, table

# Of VBench's leaderboard, in percent.
COGVIDEOX_2B = {
    "subject_consistency": 96.78,
    "background_consistency": 96.63,
    "temporal_flickering": 98.89,
    "motion_smoothness": 97.73,
    "dynamic_degree": 59.86,
    "aesthetic_quality": 60.82,
    "imaging_quality": 61.68,
    "object_class": 83.37,
    "multiple_objects": 62.63,
    "human_action": 98.00,
    "color": 79.41,
    "spatial_relationship": 69.90,
    "scene": 51.14,
    "appearance_style": 24.80,
    "temporal_style": 24.36,
    "overall_consistency": 26.66,
}
RAW = {name: value / 100 for name, value in COGVIDEOX_2B.items()}
RESULTS = (
    "2024-10-08 12:00:00 Results: Visual Quality 67.94, Text-Video Alignment 57.01, Motion Quality 55.31,"
    " Temporal Consistency 63.41, Total 244 \n"
)


def test_raw_scores_of_a_known_model_give_its_row_of_the_paper():
    assert of_vbench(RAW).row == pytest.approx(published.VBENCH["CogVideoX-2B"], abs=0.005)
    assert of_vbench(RAW).missing == ()


def test_a_dimension_that_was_not_scored_leaves_no_total():
    some = of_vbench({name: value for name, value in RAW.items() if name != "scene"})
    assert some.row[:3] == (None, pytest.approx(82.18, abs=0.005), None)
    assert some.missing == ("scene",)


def test_vbenchs_files_of_single_dimensions_are_one_result(tmp_path):
    for name in ("motion_smoothness", "dynamic_degree"):
        (tmp_path / f"{name}_eval_results.json").write_text(json.dumps({name: [RAW[name], [{"video_path": "a.mp4"}]]}))
        (tmp_path / f"{name}_full_info.json").write_text("[]")
    assert read_scores(str(tmp_path)).row == (None, None, None, pytest.approx(97.73), pytest.approx(59.86))


def test_evalcrafters_last_result_is_read(tmp_path):
    (tmp_path / "final_result.txt").write_text("Metrics: {}\n" + RESULTS.replace("67.94", "1.00") + RESULTS)
    assert read_scores(str(tmp_path)).row == published.EVALCRAFTER["Pyramid Flow (paper)"]
    with pytest.raises(UserError, match="no line"):
        of_evalcrafter("Metrics: {}", "f")
    with pytest.raises(UserError, match="neither"):
        read_scores(str(tmp_path / "nothing"))


def test_ones_own_row_stands_below_the_papers():
    lines = table({"mine": of_vbench(RAW), "other": of_evalcrafter(RESULTS, "f")}, "VBench")
    assert len({len(line) for line in lines}) == 1
    assert lines[-2].split() == ["Pyramid", "Flow", "(paper)", "81.72", "84.74", "69.62", "99.12", "64.63"]
    assert lines[-1].split() == ["mine", "80.91", "82.18", "75.83", "97.73", "59.86"]


def test_the_command_names_rows(tmp_path):
    (tmp_path / "final_result.txt").write_text(RESULTS)
    (tmp_path / "r.json").write_text(json.dumps({"color": [0.5, []]}))
    shown = CliRunner().invoke(app, ["scores", f"mine={tmp_path}/final_result.txt", f"{tmp_path}/r.json"])
    assert shown.exit_code == 0
    assert shown.stdout.index("VBench") < shown.stdout.index("EvalCrafter") < shown.stdout.index("mine")
    assert "r.json: not scored: subject_consistency" in shown.stdout
