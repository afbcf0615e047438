"""The command line as a user meets it: real processes, their output and exit codes."""

import importlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from ray.serve.schema import ServeDeploySchema
from typer.core import TyperGroup

from rayramid.platform.cli import app

SPECS = Path(__file__).parents[2] / "infra/specs"


def rayramid(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rayramid.platform.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=120,
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error a user sees: exit code 2 and a single line."""
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_version() -> None:
    assert rayramid("--version").stdout == "rayramid 0.1.0\n"


def test_help_names_every_command() -> None:
    shown = rayramid("--help").stdout
    for command in app.registered_commands:
        assert f" {command.name} " in shown
    for group in app.registered_groups:
        assert f" {group.name} " in shown


def commands(group: TyperGroup, *path: str) -> Iterator[tuple[str, str]]:
    """Each command as it is typed, and its help."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *path, name)
        else:
            yield " ".join(("rayramid", *path, name)), command.help or ""


def test_the_help_of_every_command_has_an_example_of_it() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    found = dict(commands(group))
    assert len(found) > 20
    for command, shown in found.items():
        assert re.search(rf"Examples?: {command} ?", shown), command


def test_a_shell_completes_commands_and_kinds() -> None:
    for typed, completed in (
        ("rayramid jo", "jobs"),
        ("rayramid jobs st", "status\nstop"),
        ("rayramid spec schema v", "vae"),
    ):
        environment = {
            **os.environ,
            "_RAYRAMID_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        }
        command = [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'rayramid'; from rayramid.platform.cli import main; main()",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
        assert done.stdout.strip() == completed


def test_the_schema_of_a_kind_is_json() -> None:
    assert json.loads(rayramid("spec", "schema", "vae").stdout)["properties"]["kind"]["const"] == "vae"
    assert "unknown kind 'vea'; did you mean 'vae'?" in one_line(rayramid("spec", "schema", "vea"))


def test_a_serve_spec_is_written_as_what_serve_deploy_takes(model_folder: str, tmp_path: Path) -> None:
    spec = tmp_path / "serve.yaml"
    spec.write_text(f"kind: serve\nmodel: {model_folder}\nstore: {tmp_path / 'store'}\nlimits: {{queue: 3}}\n")
    config = yaml.safe_load(rayramid("serve", str(spec), "--config", "--set", "port=8001").stdout)
    assert ServeDeploySchema.model_validate(config).http_options.port == 8001
    assert "keys: off lets everybody in" in one_line(rayramid("serve", str(spec), "--config", "--set", "keys=off"))
    (endpoint,) = config["applications"]
    module, _, name = endpoint["import_path"].partition(":")
    assert getattr(importlib.import_module(module), name)(endpoint["args"])._bound_deployment.name == "Gateway"


def test_init_writes_specs_that_check_accepts_and_never_overwrites(tmp_path: Path) -> None:
    written = rayramid("init", str(tmp_path / "specs"))
    assert written.returncode == 0
    files = sorted(str(path) for path in (tmp_path / "specs").rglob("*.yaml"))
    shipped = {str(path.relative_to(SPECS)) for path in SPECS.rglob("*.yaml")}
    assert {str(Path(path).relative_to(tmp_path / "specs")) for path in files} == shipped
    assert "ablations/train.yaml" in shipped
    assert written.stdout.split()[: len(files)] == sorted(files, key=lambda path: ("/ablations/" in path, path))
    assert rayramid("spec", "check", *files).returncode == 0
    refused = one_line(rayramid("init", str(tmp_path / "specs")))
    assert f"{tmp_path / 'specs'} already has" in refused
    assert "data-local.yaml" in refused


def test_a_missing_spec_is_one_line(tmp_path: Path) -> None:
    assert "no such spec" in one_line(rayramid("data", "run", str(tmp_path / "absent.yaml")))


def test_an_unknown_key_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    spec = tmp_path / "serve.yaml"
    spec.write_text("kind: serve\nmodel: m\nstroe: s\n")
    assert "unknown key 'stroe'; did you mean 'store'?" in one_line(rayramid("serve", str(spec)))


def test_a_folder_that_cant_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in one_line(rayramid("demo", "--out", str(tmp_path / "file" / "demo")))


def test_a_folder_without_videos_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    spec = tmp_path / "data.yaml"
    spec.write_text(
        f"kind: data\nroot: {tmp_path / 'root'}\nsources: [{{folder: {tmp_path / 'empty'}}}]\n"
        "embed: {text: tiny}\nencode: {vae: pca, sizes: [128x128], frames: [9]}\n"
    )
    assert str(tmp_path / "empty") in one_line(rayramid("data", "run", str(spec), "--dry-run"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--prompt", "p", "--model", "m", "--url", "http://h"],
            "name either a model folder by --model or an endpoint by --url",
        ),
        (["--prompt", "p", "--model", "no-such-model", "--out", "x.mp4"], "no-such-model"),
        (["--prompt", "p", "--model", "m", "--out", "no/such/folder/x.mp4"], "does not exist"),
    ],
)
def test_sample_says_what_is_missing(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in one_line(rayramid("sample", *arguments, cwd=tmp_path))


def test_sample_makes_the_same_video_again_from_a_seed(model_folder: str, tmp_path: Path) -> None:
    from rayramid.models.media.read import probe

    for name in ("a.mp4", "b.mp4"):
        arguments = ["--model", model_folder, "--prompt", "a red circle", "--seed", "3", "--seconds", "1"]
        made = rayramid("sample", *arguments, "--size", "96x64", "--out", str(tmp_path / name))
        assert made.returncode == 0, made.stderr
        assert "96x64, 8 frames, seed 3" in made.stdout
    first, second = (probe(str(tmp_path / name)) for name in ("a.mp4", "b.mp4"))
    assert (first.width, first.height, first.frames) == (96, 64, 8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert first == second


def test_a_busy_port_is_one_line_before_ray_starts(model_folder: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        spec = tmp_path / "serve.yaml"
        spec.write_text(f"kind: serve\nmodel: {model_folder}\nstore: {tmp_path / 'store'}\nport: {port}\n")
        assert str(port) in one_line(rayramid("serve", str(spec)))
