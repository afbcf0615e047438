"""An evaluation on a Ray cluster: pieces dealt to workers, results in a folder.

results.json    every number, with the command, revision, seed and machine that gave it
cases.jsonl     one line per video: caption, seed's scene, verdicts
videos/         the first videos of each kind as strips of frames, WebP
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from rayramid.models import storage
from rayramid.models.card import load_card
from rayramid.models.checkpoint import check_files
from rayramid.platform.evaluation.examiner import Case, Examiner, pieces
from rayramid.platform.evaluation.pool import deal
from rayramid.platform.evaluation.record import record
from rayramid.platform.evaluation.results import sum_up
from rayramid.platform.evaluation.spec import EvalSpec

RESULTS = "results.json"
STRIPS = 32
"""Videos of each kind that are kept to look at."""


def evaluate(spec: EvalSpec, command: str, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """The results of an evaluation, which are also written to its output. Expects Ray to be initialised.

    Args:
        spec: what to do.
        command: what was typed, for the record.
        on_progress: called with videos judged and in all.

    Raises:
        UserError: no whole model there, or an output that can't be written.
    """
    started = time.monotonic()
    storage.check_writable(spec.output)
    card = load_card(spec.model)
    check_files(spec.model, card)
    work = pieces(spec)
    total, cases = sum(piece.count for piece in work), list[Case]()
    for done in deal(Examiner, spec, spec.workers, "examine", work):
        cases += done
        if on_progress:
            on_progress(len(cases), total)
    cases.sort(key=lambda case: (case.piece.kind, case.piece.steps or 0, case.index))
    results = {
        **record(spec, command, started),
        "model": {
            name: getattr(card, name)
            for name in ("preset", "step", "steps", "guidance", "video_guidance", "vae_fingerprint", "text_fingerprint")
        },
        **sum_up(spec, cases),
    }
    _write(spec.output, cases, results)
    return results


def _write(output: str, cases: Sequence[Case], results: dict[str, Any]) -> None:
    for case in cases:
        if case.index < STRIPS and case.piece.steps is None:
            storage.write_atomic(storage.join(output, "videos", f"{case.piece.kind}-{case.index:03d}.webp"), case.strip)
    rows = [
        {
            "kind": case.piece.kind,
            "steps": case.piece.steps,
            "index": case.index,
            "caption": case.caption,
            "wrong": {
                length: [name for name, right in parts.items() if not right] for length, parts in case.verdicts.items()
            },
        }
        for case in cases
    ]
    storage.write_atomic(storage.join(output, "cases.jsonl"), "".join(json.dumps(row) + "\n" for row in rows).encode())
    storage.write_atomic(storage.join(output, RESULTS), json.dumps(results, indent=1).encode() + b"\n")
