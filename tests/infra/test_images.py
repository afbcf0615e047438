"""The container image: what it is made of agrees with the project, and everything that names it names the same."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
DOCKERFILE = (INFRA / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (INFRA / "constraints.txt").read_text().splitlines() if "==" in line)
CONFIGS = [path for pattern in ("*.yaml", "*.yml", "*.sh", "Dockerfile") for path in INFRA.rglob(pattern)]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their lines joined, without comments."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined]


def requirements() -> list[Requirement]:
    """What the image installs: the project's needs and those of the Dockerfile's extras."""
    (extras,) = re.findall(r"ARG EXTRAS=(\S+)", DOCKERFILE)
    optional = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + [line for extra in extras.split(",") for line in optional[extra]]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_everything_that_is_installed_has_a_pin_within_its_bounds(requirement: Requirement) -> None:
    name = re.sub(r"[-_.]+", "-", requirement.name).lower()
    assert requirement.specifier.contains(PINS[name])


@pytest.mark.parametrize(
    "path", [*CONFIGS, *(ROOT / "docs").glob("*.md"), ROOT / "README.md"], ids=lambda path: path.name
)
def test_every_tag_of_the_image_and_every_version_of_ray_is_the_pinned_one(path: Path) -> None:
    text = path.read_text()
    tags = re.findall(r"\brayramid:(\d[\w.]*)", text) + re.findall(r"newTag: (\d[\d.]*)", text)
    versions = re.findall(r"rayVersion: (\S+)", text)
    assert {*tags, *versions} <= {PINS["ray"]}


def test_the_cluster_files_name_the_image_at_all() -> None:
    assert f"rayramid:{PINS['ray']}" in (INFRA / "clusters" / "aws.yaml").read_text()


def test_the_image_has_one_pinned_python_that_the_project_supports() -> None:
    (python,) = re.findall(r"ARG PYTHON=(\d+\.\d+\.\d+)$", DOCKERFILE, re.MULTILINE)
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert set(bases) == {"python:${PYTHON}-slim-bookworm"}


def test_the_image_runs_as_nobody_special_and_installs_only_what_is_pinned() -> None:
    last_stage = instructions()[[name for name, _ in instructions()].index("FROM", 1) :]
    assert [rest for name, rest in last_stage if name == "USER"] == ["1000"]
    installs = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in line for line in installs)


def test_what_is_copied_into_the_image_is_let_in() -> None:
    patterns = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in patterns if line.startswith("!")}
    assert "*" in patterns
    links = {
        str(path.resolve().relative_to(ROOT)) for path in (ROOT / "src" / "rayramid").iterdir() if path.is_symlink()
    }
    assert links <= let_in
    assert all((ROOT / name).exists() for name in let_in)
    assert PROJECT["readme"] in let_in
    assert set(PROJECT["license-files"]) <= let_in
