"""Nothing that comes from outside is run: how the sources of all floors load pickles, YAML, arrays and models."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("models", "pipelines", "serve", "platform", "infra")


def calls() -> Iterator[tuple[str, str, dict[str, ast.expr]]]:
    """Each call of the sources: where it is, what is called, its named arguments."""
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    named = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
                    yield place, ast.unparse(node.func), named


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def test_torch_unpickles_weights_only() -> None:
    loads = [(place, named) for place, called, named in calls() if called == "torch.load"]
    assert len(loads) >= 4
    assert [place for place, named in loads if not is_true(named.get("weights_only"))] == []


@pytest.mark.parametrize("argument", ["trust_remote_code", "allow_pickle"])
def test_no_library_is_told_to_run_what_it_loads(argument: str) -> None:
    assert [place for place, _, named in calls() if argument in named] == []


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("S301", "import pickle\n\npickle.loads(data)"),
        ("S301", "import pickle\n\npickle.load(file)"),
        ("S302", "import marshal\n\nmarshal.loads(data)"),
        ("S506", "import yaml\n\nyaml.load(text, Loader=yaml.Loader)"),
        ("S307", "eval(text)"),
        ("S102", "exec(text)"),
        ("S602", "import subprocess\n\nsubprocess.run(text, shell=True)"),
        ("S501", "import httpx\n\nhttpx.get(url, verify=False)"),
    ],
)
def test_ruff_refuses_what_runs_or_trusts_data(rule: str, line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", "platform/probe.py", "-"],
        input=f"{line}\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert rule in done.stdout
