"""`rayramid ablate`: a claim of the paper tested."""

import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING, cast

from rayramid.models import storage
from rayramid.platform.cluster import connect
from rayramid.platform.commands.options import Address, AsJson, Overrides, SpecFile
from rayramid.platform.console import emit_json, progress, result, say
from rayramid.platform.spec import load_spec

if TYPE_CHECKING:
    from rayramid.platform.ablation.spec import AblationSpec


def ablate(spec: SpecFile, overrides: Overrides = None, address: Address = None, as_json: AsJson = False) -> None:
    """Train the arms of an ablation on equal operations, measure them, and draw them beside what the paper claims.

    Run again, it goes on where it stopped; what was measured is not measured again.

    Example: rayramid ablate infra/specs/ablations/spatial-pyramid.yaml
    """
    from rayramid.platform.ablation import result as results
    from rayramid.platform.ablation import run

    ablation = cast("AblationSpec", load_spec(spec, overrides or [], kind="ablation"))
    command = shlex.join(["rayramid", *sys.argv[1:]])
    runs = f"{len(ablation.arms)} arms with {len(ablation.seeds)} seeds, {ablation.tflop:g} TFLOP of training each"
    say(f"{runs}; on 2 cores all takes about {ablation.hours:g} hours")
    with connect(address), progress() as update:
        found = run.ablate(ablation, spec.parent, command, on_progress=partial(update, "points"))
    if as_json:
        emit_json(found)
        return
    for line in results.lines(found):
        result(line)
    result(f"result  {storage.join(ablation.output, run.RESULT)}")
    result(f"figure  {storage.join(ablation.output, run.FIGURE)}")
