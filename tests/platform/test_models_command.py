"""`rayramid models`, and specs that name several."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayramid.models.errors import UserError
from rayramid.platform.cli import app
from rayramid.platform.spec import load_spec
from rayramid.serve.releases import Releases, Version, versions_of

SPRITES = "rayramid://sprites"


def rayramid(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "serve.yaml"
    path.write_text(f"kind: serve\nmodels: {{clips: {SPRITES}}}\nstore: {tmp_path / 'store'}\n")
    return path


def test_a_version_is_tried_promoted_and_rolled_back(spec: Path, model_folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no endpoint has released a model there yet"):
        rayramid("models", "list", spec)
    first, second = Version.at(SPRITES), Version.at(model_folder)
    Releases(str(tmp_path / "store")).follow_spec("clips", first)
    said = rayramid("models", "canary", spec, "clips", model_folder, "--share", 0.25)
    assert said == f"clips: {first.id} {SPRITES}; 25.0% {second.id} {model_folder}\n"
    assert rayramid("models", "promote", spec, "clips") == f"clips: {second.id} {model_folder}\n"
    assert rayramid("models", "rollback", spec, "clips") == f"clips: {first.id} {SPRITES}\n"
    assert rayramid("models", "promote", spec, "clips", model_folder) == f"clips: {second.id} {model_folder}\n"
    history = json.loads(rayramid("models", "list", spec, "--json"))["clips"]
    assert [(each["stable"]["id"], each["share"], each["by"]) for each in history] == [
        (second.id, 0.0, "operator"),
        (first.id, 0.0, "operator"),
        (second.id, 0.0, "operator"),
        (first.id, 0.25, "operator"),
        (first.id, 0.0, "spec"),
    ]
    assert len(rayramid("models", "list", spec).splitlines()) == 5
    with pytest.raises(UserError, match=re.escape("no model was released under the name 'clip'; there are clips")):
        rayramid("models", "rollback", spec, "clip")
    with pytest.raises(UserError, match="not a rayramid model"):
        rayramid("models", "promote", spec, "clips", tmp_path)


def test_a_spec_names_one_model_or_several(spec: Path, model_folder: str, tmp_path: Path) -> None:
    several = load_spec(spec, [f"models.tiny={model_folder}"])
    assert list(versions_of(several).items()) == [  # type: ignore[arg-type]
        ("clips", Version.at(SPRITES)),
        ("tiny", Version.at(model_folder)),
    ]
    one = load_spec(spec, ["models={}", f"model={model_folder}"])
    assert list(versions_of(one)) == ["tiny"]  # type: ignore[arg-type]
    for overrides, message in (
        (["models={}"], "give `model`, one folder, or `models`"),
        ([f"model={model_folder}"], "give `model`, one folder, or `models`"),
        (["name=x"], "name is that of `model`"),
        (["models.clips={folder: x, lroa: y}"], "unknown key 'models.clips.lroa'; did you mean 'lora'"),
        (["models={'../x': y}"], "String should match pattern"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            load_spec(spec, overrides)


def test_an_adapter_that_is_not_there_is_said_before_anything_starts(spec: Path, tmp_path: Path) -> None:
    wrong = load_spec(spec, [f"models.clips={{folder: '{SPRITES}', lora: {tmp_path}}}"])
    with pytest.raises(UserError, match=r"no adapter, it has no adapter_config\.json"):
        versions_of(wrong)  # type: ignore[arg-type]
