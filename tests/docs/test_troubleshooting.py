"""The messages that docs/troubleshooting.md quotes are those of the program."""

import ast
import re
from collections.abc import Iterator

from pages import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
FLOORS = ("models", "pipelines", "serve", "platform")


def messages() -> list[str]:
    """The first cell of every row of the page's tables."""
    return re.findall(r"^\| `(.*?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def texts() -> Iterator[str]:
    """Every string of the program, with `…` for what is put in."""
    for floor in FLOORS:
        for file in (ROOT / floor).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_quoted_message_is_one_of_the_program() -> None:
    program = "\n".join(texts())
    quoted = messages()
    assert len(quoted) > 40
    assert [message for message in quoted if message.removesuffix("…").rstrip() not in program] == []
