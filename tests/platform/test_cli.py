"""The command line as a user meets it: real processes, their output and exit codes."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest


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
    for command in (
        "demo",
        "init",
        "data",
        "train",
        "sample",
        "eval",
        "serve",
        "bench",
        "keys",
        "submit",
        "plan",
        "weights",
        "spec",
    ):
        assert command in shown


def test_init_writes_specs_that_check_accepts_and_never_overwrites(tmp_path: Path) -> None:
    written = rayramid("init", str(tmp_path / "specs"))
    assert written.returncode == 0
    files = sorted(str(path) for path in (tmp_path / "specs").glob("*.yaml"))
    assert len(files) >= 3
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
        (["--prompt", "p"], "name either a model folder by --model or an endpoint by --url"),
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
