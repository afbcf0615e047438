"""The model card: a literal round trip, and one line for whatever is wrong with it."""

import json
import subprocess
import sys

import pytest

from rayramid.models.card import ModelCard, load_card
from rayramid.models.errors import UserError

CARD = ModelCard(
    preset="tiny",
    dit={"patch": 2, "frames_per_unit": 1},
    pyramid={"levels": 3, "gamma": 1 / 3},
    fps=24.0,
    width=128,
    height=64,
    frames=25,
    steps=((4, 4, 4), (2, 2, 2)),
    dataset_version={"s3://bucket/data": 7},
)


def test_a_card_reads_back_as_it_was_written(tmp_path):
    (tmp_path / "rayramid.json").write_bytes(CARD.to_json())
    assert load_card(str(tmp_path)) == CARD


def test_sizes_are_multiples_of_vae_stride_patch_and_coarsest_level():
    assert CARD.size_multiple == 8 * 2 * 4
    assert (CARD.levels, CARD.frames_per_unit) == (3, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0}, r"rayramid\.json: fps: "),
        ({"fsp": 24}, r"rayramid\.json: fsp: "),
        ({"frames": 24}, r"rayramid\.json: frames: .*1 \+ 8n"),
        ({"steps": [[4, 4, 4], [2, 2]]}, r"rayramid\.json: .*each of the 3 stages"),
        ({"format_version": 2}, r"rayramid\.json: format_version: "),
    ],
)
def test_a_wrong_card_names_file_and_key(tmp_path, change, message):
    (tmp_path / "rayramid.json").write_text(json.dumps({**json.loads(CARD.to_json()), **change}))
    with pytest.raises(UserError, match=message):
        load_card(str(tmp_path))


def test_a_folder_without_a_card_says_so(tmp_path):
    with pytest.raises(UserError, match=r"not a rayramid model, it has no rayramid\.json"):
        load_card(str(tmp_path))


def test_the_card_imports_no_torch():
    code = "import sys, rayramid.models.card; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
