"""`rayramid eval`: a model judged."""

import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING, cast

from rayramid.models import storage
from rayramid.platform.cluster import connect
from rayramid.platform.commands.options import Address, AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, progress, result
from rayramid.platform.spec import load_spec

if TYPE_CHECKING:
    from rayramid.platform.evaluation.spec import EvalSpec


def evaluate(spec: SpecFile, overrides: Overrides = None, address: Address = None, as_json: AsJson = False) -> None:
    """Judge a model of the sprites world on captions that training never saw.

    Example: rayramid eval infra/specs/eval-sprites.yaml --set prompts=32
    """
    from rayramid.platform.evaluation import results, run

    eval_spec = cast("EvalSpec", load_spec(spec, overrides or [], kind="eval"))
    command = shlex.join(["rayramid", *sys.argv[1:]])
    with connect(address), progress() as update:
        found = run.evaluate(eval_spec, command, on_progress=partial(update, "videos"))
    if as_json:
        emit_json(found)
        return
    for line in results.lines(found):
        result(line)
    result(f"results  {storage.join(eval_spec.output, run.RESULTS)}")
