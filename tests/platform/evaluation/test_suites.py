"""Prompt suites: which videos under which names, what is left to make, how they are scored, a run that is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from rayramid.models.card import load_card
from rayramid.models.errors import UserError
from rayramid.models.provenance import read_provenance
from rayramid.platform.evaluation.suites.layouts import Prompt, read_prompts, scoring, wanted
from rayramid.platform.evaluation.suites.run import Maker, evaluate, lines, manifest_of, missing
from rayramid.platform.evaluation.suites.spec import SuiteSpec


def spec_of(prompts: object, **changes: object) -> SuiteSpec:
    plain = {"model": "m", "output": "/o", "layout": "vbench", "prompts": str(prompts)}
    return SuiteSpec.model_validate({**plain, **changes})


@pytest.fixture
def per_dimension(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts_per_dimension"
    folder.mkdir()
    for name, text in {
        "all_dimension": "not\nread\n",
        "scene": "alley\n\nbarn \n",
        "temporal_flickering": "a toilet, frozen in time\nalley\n",
        "subject_consistency": "a person walking\n",
    }.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_a_folder_of_vbench_has_each_prompt_once_with_all_its_dimensions(per_dimension):
    assert read_prompts(str(per_dimension)) == [
        Prompt(0, "alley", ("scene", "background_consistency", "temporal_flickering")),
        Prompt(1, "barn", ("scene", "background_consistency")),
        Prompt(2, "a person walking", ("subject_consistency", "motion_smoothness", "dynamic_degree")),
        Prompt(3, "a toilet, frozen in time", ("temporal_flickering",)),
    ]


def test_vbenchs_full_info_is_read(tmp_path):
    info = [
        {"prompt_en": "barn", "dimension": ["scene"], "auxiliary_info": {"scene": "barn"}},
        {"prompt_en": "a dog", "dimension": ["object_class"]},
        {"prompt_en": "barn", "dimension": ["color"]},
    ]
    (tmp_path / "VBench_full_info.json").write_text(json.dumps(info))
    found = read_prompts(str(tmp_path / "VBench_full_info.json"))
    assert found == [Prompt(0, "barn", ("scene", "color")), Prompt(1, "a dog", ("object_class",))]


def test_vbench_wants_five_videos_of_a_prompt_and_25_where_flicker_is_judged(per_dimension):
    files = [video.file for video in wanted(spec_of(per_dimension))]
    assert len(files) == 25 + 5 + 5 + 25
    assert files[:2] == ["alley-0.mp4", "alley-1.mp4"]
    assert files[25:30] == [f"barn-{sample}.mp4" for sample in range(5)]
    assert files[-1] == "a toilet, frozen in time-24.mp4"


def test_evalcrafter_wants_one_numbered_video_of_each_line(tmp_path):
    (tmp_path / "prompt700.txt").write_text("two dogs\na cat / a hat\n")
    videos = wanted(spec_of(tmp_path / "prompt700.txt", layout="evalcrafter"))
    assert [(video.file, video.prompt) for video in videos] == [("0000.mp4", "two dogs"), ("0001.mp4", "a cat / a hat")]
    with pytest.raises(ValidationError, match="EvalCrafter has one video"):
        spec_of("p", layout="evalcrafter", samples=2)


def test_a_part_of_a_suite_has_the_seeds_of_the_whole(per_dimension):
    whole = {video.file: video.seed for video in wanted(spec_of(per_dimension, seed=7))}
    assert len(set(whole.values())) == len(whole)
    assert whole["barn-3.mp4"] == 7 + 1000 + 3
    part = wanted(spec_of(per_dimension, seed=7, dimensions=["dynamic_degree"], first=1, samples=2))
    assert {video.file: video.seed for video in part} == {f"a person walking-{n}.mp4": 2007 + n for n in (0, 1)}


def test_what_can_not_be_made_is_refused(per_dimension, tmp_path):
    with pytest.raises(UserError, match="no prompts for 'colour'; it has background_consistency"):
        wanted(spec_of(per_dimension, dimensions=["colour"]))
    (tmp_path / "a.txt").write_text("either/or\n")
    with pytest.raises(UserError, match=r"either/or-0\.mp4"):
        wanted(spec_of(tmp_path / "a.txt"))
    with pytest.raises(UserError, match="no prompts here"):
        wanted(spec_of(tmp_path / "empty"))


def test_the_commands_score_still_videos_apart(tmp_path):
    spec = spec_of("/p/VBench_full_info.json", output="/my videos")
    assert scoring(spec, ["color", "temporal_flickering", "scene"]) == [
        "python static_filter.py --videos_path '/my videos/videos' --result_path still",
        "python evaluate.py --full_json_dir '/my videos/full_info.json' --videos_path still/filtered_videos"
        " --dimension temporal_flickering",
        "python evaluate.py --full_json_dir '/my videos/full_info.json' --videos_path '/my videos/videos'"
        " --dimension color scene",
    ]
    (command,) = scoring(spec_of("p.txt", layout="evalcrafter"), [])
    assert command.endswith('EvalCrafter && bash $EC_path/start.sh $EC_path /o/videos"')


def test_videos_are_made_measured_and_named(model_folder, per_dimension, tmp_path):
    output = tmp_path / "out"
    spec = spec_of(
        per_dimension, model=model_folder, output=str(output), first=1, samples=2, seconds=9 / 8, steps=1, batch=2
    )
    videos = wanted(spec)
    assert missing(spec.output, videos) == videos
    assert Maker(spec).make(videos[:1]) == 1
    assert missing(spec.output, videos) == videos[1:]
    assert read_provenance(str(output / "videos/alley-0.mp4"))["seed"] == 0
    measures = json.loads((output / "measures/0000-0.json").read_text())
    assert [len(curve) for curve in measures["curves"].values()] == [2] * len(measures["curves"])
    manifest = manifest_of(spec, load_card(model_folder), videos)
    assert manifest["videos"][1] == {"file": "alley-1.mp4", "prompt": "alley", "number": 0, "sample": 1, "seed": 1}
    assert manifest["settings"]["brief"]["frames"] == 9


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_suite_that_was_killed_goes_on_and_makes_no_video_twice(model_folder, tmp_path):
    output = tmp_path / "out"
    (tmp_path / "prompts.txt").write_text("".join(f"a red {thing}\n" for thing in ("dot", "cat", "hat", "car", "sun")))
    fields = {
        **spec_of("prompts.txt", model=model_folder).model_dump(mode="json", exclude_none=True),
        "prompts": str(tmp_path / "prompts.txt"),
        "output": str(output),
        "samples": 2,
        "seconds": 9 / 8,
        "steps": 1,
        "batch": 1,
        "workers": {"count": 1, "cpus": 0.5},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(fields))
    command = [sys.executable, "-m", "rayramid.platform.cli", "eval", str(tmp_path / "suite.yaml")]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    killed = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not list((output / "videos").glob("*.mp4")):
        assert killed.poll() is None
        try:
            killed.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    # Its own session: the command, its Ray and its worker.
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (output / "videos").glob("*.mp4")}
    assert 0 < len(before) < 10
    assert not (output / "results.json").exists()

    again = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    results = json.loads(again.stdout)
    after = {path.name: path.stat().st_mtime_ns for path in (output / "videos").glob("*.mp4")}
    assert len(after) == 10
    assert before.items() <= after.items()
    assert (results["videos"], results["drift"]["videos"]) == (10, 10)
    assert results["found"] >= len(before)
    assert json.loads((output / "results.json").read_text()) == results

    other = subprocess.run([*command, "--set", "seed=1"], env=environment, capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert "the videos here were made with seed 0, not 1" in other.stderr


@pytest.mark.slow
def test_a_finished_suite_is_told_again_without_a_worker(ray_cluster, model_folder, tmp_path):
    (tmp_path / "p.txt").write_text("a dot\n")
    spec = spec_of(
        tmp_path / "p.txt",
        model=model_folder,
        output=str(tmp_path / "out"),
        layout="evalcrafter",
        seconds=9 / 8,
        steps=1,
    )
    first, second = evaluate(spec, "typed"), evaluate(spec, "typed")
    assert (first["found"], second["found"]) == (0, 1)
    assert first["drift"] == second["drift"]
    assert "bruceliu1/evalcrafter" in lines(second)[-1]
