"""The commands that README and docs tell a user to type: each exists, with every option."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from pages import PAGES, ROOT, blocks, prose
from typer.core import TyperGroup

from rayramid.platform.cli import app


def typed(page: Path) -> list[list[str]]:
    """What a page calls rayramid with, in blocks, after a transcript's `$` and in prose, up to a pipe or the like."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^\$ (.*)$", "".join(blocks(page, "console")), re.MULTILINE)
    lines += re.findall(r"^ {4}(rayramid .*)$", prose(page), re.MULTILINE)
    lines += [" ".join(code.split()) for code in re.findall(r"`(rayramid [^`]*)`", prose(page))]
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
        while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
            name = rest.pop(0)
            assert name in command.commands, f"rayramid {' '.join(words)}"
            command = command.commands[name]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= known, f"rayramid {' '.join(words)}"


def test_the_pages_are_read_at_all() -> None:
    assert ["jobs", "list"] in typed(ROOT / "docs" / "clusters.md")
    assert sum(len(typed(page)) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_targets_and_files_of_other_commands_exist(page: Path) -> None:
    shell = "".join(blocks(page, "sh"))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", shell, re.MULTILINE)) <= targets
    for file in re.findall(r"(?:infra|tests|docs)/[\w./-]+", shell):
        assert (ROOT / file).exists(), file
