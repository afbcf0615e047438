"""`rayramid scores`: what benchmarks wrote, beside the paper's tables."""

from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Annotated

import typer

from rayramid.platform.commands.options import AsJson
from rayramid.platform.console import emit_json, result


def scores(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]PATH...", help="VBench's or EvalCrafter's results: a file or a folder.", show_default=False
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show scores of VBench and EvalCrafter next to the paper's Tables 1 and 2.

    Example: rayramid scores mine=evaluation_results results/final_result.txt
    """
    from rayramid.platform.evaluation.suites.scores import COLUMNS, read_scores, table

    named = [item.partition("=") if "=" in item else (PurePosixPath(item).name, "=", item) for item in results]
    rows = {name: read_scores(path) for name, _, path in named}
    if as_json:
        emit_json({name: asdict(of) for name, of in rows.items()})
        return
    for benchmark in COLUMNS:
        if any(of.benchmark == benchmark for of in rows.values()):
            result(benchmark)
            for line in table(rows, benchmark):
                result(f"  {line}")
    for name, of in rows.items():
        if of.missing:
            result(f"{name}: not scored: {', '.join(of.missing)}")
