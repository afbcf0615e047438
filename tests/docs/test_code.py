"""The code that the pages show: Python runs, YAML is what `rayramid spec check` accepts."""

import doctest
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import OpenAI
from pages import PAGES, ROOT, blocks

from rayramid.models.errors import UserError
from rayramid.platform.spec import parse_spec
from rayramid.serve.webhooks import signature

# One needs an endpoint and is run by tests/serve/test_readme.py, the other an event and is run below.
ELSEWHERE = {"README.md", "security.md"}
SHIPPED = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "infra/specs").glob("*.yaml"))]


def with_(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


@pytest.mark.parametrize("page", with_("pycon"), ids=lambda page: page.stem)
def test_a_session_answers_as_the_page_says(page: Path) -> None:
    session = "\n".join(blocks(page, "pycon"))
    test = doctest.DocTestParser().get_doctest(session, {}, page.name, str(page), 0)
    result = doctest.DocTestRunner().run(test)
    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize(
    "page", [page for page in with_("python") if page.name not in ELSEWHERE], ids=lambda page: page.stem
)
def test_the_programs_of_a_page_run_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    for number, program in enumerate(blocks(page, "python")):
        exec(compile(program, f"{page.name}, program {number}", "exec"), names)


@pytest.mark.parametrize("page", with_("yaml"), ids=lambda page: page.stem)
def test_a_spec_or_a_part_of_one_is_valid(page: Path) -> None:
    for text in blocks(page, "yaml"):
        part = yaml.safe_load(text)
        wholes = [part] if "kind" in part else [{**spec, **part} for spec in SHIPPED]
        refusals = [refusal for whole in wholes if (refusal := _refusal(whole))]
        assert len(refusals) < len(wholes), f"{text}\n{refusals}"


def _refusal(fields: dict[str, Any]) -> str | None:
    try:
        parse_spec(fields, where="the page's")
    except UserError as error:
        return str(error)
    return None


def test_an_event_that_came_is_verified_as_the_page_on_security_says() -> None:
    secret, body = "whsec_c2VjcmV0LXRoYXQtbm9ib2R5LWtub3dz", b'{"type": "video.completed", "data": {"id": "video_1"}}'
    names: dict[str, Any] = {"OpenAI": OpenAI, "key": "none", "body": body, "secret": secret}
    names["headers"] = signature(secret, "evt_1", int(time.time()), body)
    (program,) = blocks(ROOT / "docs/security.md", "python")
    exec(program.replace('"whsec_…"', "secret"), names)
    assert (names["event"].type, names["event"].data.id) == ("video.completed", "video_1")
