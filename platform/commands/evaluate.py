"""`rayramid eval`: a model judged, or its videos compared."""

import shlex
import sys
from functools import partial
from typing import Any

from rayramid.models import storage
from rayramid.platform.cluster import connect
from rayramid.platform.commands.options import Address, AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, progress, result
from rayramid.platform.spec import load_spec

KINDS = ("eval", "suite", "distances")


def evaluate(spec: SpecFile, overrides: Overrides = None, address: Address = None, as_json: AsJson = False) -> None:
    """Judge a model of the sprites world (kind eval), make a suite's videos (suite), compare two sets (distances).

    Example: rayramid eval infra/specs/eval-sprites.yaml --set prompts=32
    """
    loaded: Any = load_spec(spec, overrides or [], kind=KINDS)
    run, lines = _program(loaded.kind)
    command = shlex.join(["rayramid", *sys.argv[1:]])
    with connect(address), progress() as update:
        found = run.evaluate(loaded, command, on_progress=partial(update, "videos"))
    if as_json:
        emit_json(found)
        return
    for line in lines(found):
        result(line)
    result(f"results  {storage.join(loaded.output, run.RESULTS)}")


def _program(kind: str) -> tuple[Any, Any]:
    """What does the work of a kind, and what tells its results to people; imported when needed."""
    match kind:
        case "eval":
            from rayramid.platform.evaluation import results, run

            return run, results.lines
        case "suite":
            from rayramid.platform.evaluation.suites import run as suites

            return suites, suites.lines
        case _:
            from rayramid.platform.evaluation.distances import run as distances

            return distances, distances.lines
