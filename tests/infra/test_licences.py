"""The page of licences lists what is needed; nothing that is needed is under the GPL alone."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")

found = importlib.util.spec_from_file_location("licences", ROOT / "infra" / "licences.py")
licences = importlib.util.module_from_spec(found)
found.loader.exec_module(licences)


def test_every_direct_dependency_has_a_line_with_a_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (direct,) = re.findall(r"## Direct dependencies\n(.*?)\n## ", PAGE, re.DOTALL)
    listed = dict(re.findall(r"^\| ([a-z0-9-]+) \| (.+) \|$", direct, re.MULTILINE))
    assert set(listed) - {"package"} == {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    assert "not told" not in listed.values()


def test_nothing_that_is_needed_is_under_the_gpl_alone() -> None:
    needed = licences.needed()
    assert {"ray", "grpcio", "uvicorn", "aiohttp"} <= {package.name for package in needed}
    assert licences.gpl_alone(needed) == []


@pytest.mark.parametrize(
    ("licence", "alone"),
    [
        *(("GPL-3.0-only", True), ("GPLv2", True), ("AGPL-3.0", True), ("GNU General Public License v3 (GPLv3)", True)),
        *(("LGPL-3.0-only", False), ("MIT OR GPL-2.0-only", False), ("Apache-2.0", False)),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
    ],
)
def test_which_licences_are_the_gpl_alone(licence: str, alone: bool) -> None:
    assert licences.gpl_alone([licences.Package("it", licence, True)]) == (["it"] if alone else [])
