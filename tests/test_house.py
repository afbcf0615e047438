"""The layout of the repository: four folders that are one import package, and stay importable from everywhere."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from rayramid.platform.wheel import build_wheel

ROOT = Path(__file__).parents[1]
FLOORS = ("models", "pipelines", "serve", "platform")


def run(*command: str, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_platform_has_no_init_or_it_would_shadow_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_the_standard_librarys_platform_is_found_from_the_root() -> None:
    code = "import uuid, platform; print(platform.system())"
    assert run(sys.executable, "-c", code) in {"Linux", "Darwin", "Windows"}


@pytest.mark.parametrize("floor", FLOORS)
def test_each_floor_is_imported_from_its_top_level_folder(floor: str) -> None:
    code = f"import rayramid.{floor} as floor; print(list(floor.__path__)[0])"
    assert Path(run(sys.executable, "-c", code)).resolve() == ROOT / floor


@pytest.mark.parametrize("floor", FLOORS[:3])
def test_package_inits_are_empty_so_that_the_decode_child_imports_no_torch(floor: str) -> None:
    assert (ROOT / floor / "__init__.py").read_text() == ""


def test_a_ray_worker_imports_every_floor(ray_cluster: str) -> None:
    import ray

    @ray.remote(num_cpus=0.1)
    def systems() -> tuple[str, str]:
        import platform

        from rayramid.platform.spec import KINDS

        return platform.system(), KINDS["data"]

    assert ray.get(systems.remote())[1] == "rayramid.pipelines.spec:DataSpec"


@pytest.mark.parametrize(
    ("floor", "line"),
    [
        ("models", "import ray"),
        ("models", "import yaml"),
        ("models", "from rayramid.pipelines import dataset"),
        ("pipelines", "from rayramid.serve import engine"),
        ("pipelines", "from rayramid.platform import spec"),
        ("serve", "from rayramid.pipelines import dataset"),
    ],
)
def test_ruff_refuses_an_import_from_a_floor_above(floor: str, line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--stdin-filename", f"{floor}/probe.py", "-"],
        input=f"{line}\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TID251" in done.stdout


def test_the_wheel_for_clusters_holds_the_four_floors_and_the_specs_and_no_requirements(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    for floor in FLOORS:
        assert any(name.startswith(f"rayramid/{floor}/") and name.endswith(".py") for name in names), floor
    assert {"rayramid/specs/data-local.yaml", "rayramid/specs/ablations/train.yaml"} <= set(names)
    metadata = zipfile.ZipFile(wheel).read("rayramid-0.1.0.dist-info/METADATA").decode()
    assert "Requires-Dist" not in metadata


def test_the_wheel_for_clusters_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert build_wheel(tmp_path / "a").read_bytes() == build_wheel(tmp_path / "b").read_bytes()


def test_the_wheel_for_clusters_imports_from_elsewhere(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    code = "import rayramid.platform.spec as spec; print(spec.__file__)"
    found = run(sys.executable, "-c", code, cwd=tmp_path, environment={"PYTHONPATH": str(target)})
    assert Path(found) == target / "rayramid" / "platform" / "spec.py"


@pytest.mark.parametrize("format_", ["sdist", "wheel"])
def test_the_distributions_hold_real_files_of_all_floors(tmp_path: Path, format_: str) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", f"--{format_}", "--outdir", str(tmp_path), str(ROOT))
    (built,) = tmp_path.iterdir()
    if format_ == "wheel":
        names = zipfile.ZipFile(built).namelist()
        prefix = "rayramid/"
    else:
        with tarfile.open(built) as archive:
            members = archive.getmembers()
        assert not any(member.issym() for member in members)
        names = [member.name for member in members]
        prefix = f"{names[0].split('/')[0]}/src/rayramid/"
    for floor in (*FLOORS, "specs"):
        assert any(name.startswith(f"{prefix}{floor}/") for name in names), floor
    for spec in ("data-local", "ablations/train"):
        assert f"{prefix}specs/{spec}.yaml" in names, spec
    for part in ("rayramid.json", "dit/model.safetensors", "vae/config.json", "text/t5_tokenizer/tokenizer.json"):
        assert f"{prefix}models/shipped/sprites/{part}" in names, part
