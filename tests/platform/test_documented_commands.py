"""The commands that README and docs tell a user to type: each exists, with every option."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from rayramid.platform.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def typed(page: Path) -> list[list[str]]:
    """The lines of a page's shell blocks that call rayramid, without what follows a pipe or redirection."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    calls = [shlex.split(line, comments=True) for line in lines if re.match(r"(\w+=\S+ )*rayramid ", line)]
    return [list(_until(words[words.index("rayramid") + 1 :])) for words in calls]


def _until(words: list[str]) -> list[str]:
    ends = [index for index, word in enumerate(words) if word in {">", "|", "&", "&&", ";"}]
    return words[: ends[0]] if ends else words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_tells_to_type_exists(page: Path) -> None:
    for words in typed(page):
        command = typer.main.get_command(app)
        rest = list(words)
        while isinstance(command, TyperGroup) and not rest[0].startswith("-"):
            name = rest.pop(0)
            assert name in command.commands, f"rayramid {' '.join(words)}"
            command = command.commands[name]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= known, f"rayramid {' '.join(words)}"


def test_the_pages_are_read_at_all() -> None:
    assert ["jobs", "list"] in typed(ROOT / "docs" / "clusters.md")
    assert sum(len(typed(page)) for page in PAGES) > 30
