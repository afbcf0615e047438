"""The sheet of samples is of an evaluation's first videos, whatever the judge said of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs.figures.samples import RIGHT, WRONG, main, samples, sheet
from rayramid.models.media.preview import sprite_sheet
from rayramid.platform.evaluation.examiner import STRIP_FRAMES, WIDTH

GREYS = range(40, 40 + 20 * STRIP_FRAMES, 20)


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """Its cases in no order, of every kind; strips whose frames get brighter."""
    cases = [("text", None, 1, ["fully_right", "kept", "shapes"]), ("text", None, 0, []), ("text", None, 2, [])]
    cases += [("text", 4, 0, ["sharp"]), ("image", None, 0, ["sharp"])]
    rows = [
        {"kind": kind, "steps": steps, "index": index, "caption": f"video {index}", "wrong": {"17": [], "49": wrong}}
        for kind, steps, index, wrong in cases
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "results.json").write_text('{"model": {"preset": "small", "step": 8787}}')
    (tmp_path / "videos").mkdir()
    frames = np.stack([np.full((WIDTH, WIDTH, 3), grey, np.uint8) for grey in GREYS])
    for index in range(3):
        (tmp_path / "videos" / f"text-{index:03d}.webp").write_bytes(sprite_sheet(frames, STRIP_FRAMES, WIDTH))
    return tmp_path


def test_samples_are_the_first_videos_from_captions_with_the_parts_that_are_wrong(evaluation: Path) -> None:
    found = {sample.caption: sample for sample in samples(evaluation, 2)}
    assert found.keys() == {"video 0", "video 1"}
    assert found["video 0"].wrong == {"17": [], "49": []}
    assert found["video 1"].wrong == {"17": [], "49": ["shapes"]}
    assert [int(np.asarray(frame)[48, 48, 0]) for frame in found["video 0"].frames] == pytest.approx(list(GREYS), abs=3)


def test_a_sheet_shows_right_and_wrong_in_their_colours(evaluation: Path) -> None:
    zero, one = sorted(samples(evaluation, 2), key=lambda sample: sample.caption)
    for sample, colours in ((zero, {RIGHT}), (one, {RIGHT, WRONG})):
        seen = {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in sheet([sample], "a model").getcolors(1 << 20)}
        assert seen & {RIGHT, WRONG} == colours


def test_the_command_writes_one_picture_of_as_many_videos_as_asked(evaluation: Path) -> None:
    heights = []
    for count in ("1", "3"):
        main([str(evaluation), str(evaluation / "sheet.webp"), "--count", count])
        with Image.open(evaluation / "sheet.webp") as picture:
            assert picture.format == "WEBP"
            heights.append(picture.height)
    assert heights[1] > 2 * heights[0]


@pytest.mark.parametrize(("count", "said"), [("1", "no evaluation here"), ("0", "invalid choice")])
def test_what_cannot_be_drawn_is_told_in_a_line(
    count: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "sheet.webp", "--count", count])
    assert said in capsys.readouterr().err
