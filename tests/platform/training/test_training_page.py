"""docs/training.md shows what the dry run of the paper's procedure prints, and compares it with the paper's hours."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from rayramid.platform.spec import load_spec
from rayramid.platform.training.census import take_census
from rayramid.platform.training.data import index_of, open_datasets
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.model import configure
from rayramid.platform.training.run import dry_run

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/training.md"
COMMAND = "rayramid train infra/specs/paper-768p.yaml --dry-run"
# Appendix B of the paper: A100 hours. Both phases at 384p together take 11,520, here in proportion to their steps.
PAPER = {
    "images": 1536.0,
    "2 seconds": 11520 * 80 / 200,
    "5 seconds": 11520 * 120 / 200,
    "5 to 10 seconds": 7680.0,
}


@pytest.fixture(scope="module")
def spec():
    return load_spec(ROOT / "infra/specs/paper-768p.yaml")


@pytest.fixture(scope="module")
def report(spec):
    return dry_run(spec)


def test_the_block_is_the_commands_output(report):
    (output,) = re.findall(rf"```console\n\$ {re.escape(COMMAND)}\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
    assert output == report.text(), "copy the command's output again"


def published_targets(spec):
    """How many targets a step of each phase has, if the published layout takes the paper's hours for the phase."""
    config = replace(configure(spec.model)[0], conditioning="official")
    datasets, measure = open_datasets(spec, outlines=True), measure_for(config)
    for phase in spec.phases:
        census = take_census(index_of(phase, datasets, measure, config.frames_per_unit), phase)
        per_target = census.flops_per_token / census.units_per_token / config.levels
        yield PAPER[phase.name] * 3600 / phase.steps * spec.workers.tflops * 1e12 / per_target


def test_the_table_compares_with_the_papers_hours(spec, report):
    rows, total = [], 0.0
    for phase, published in zip(report.phases, published_targets(spec), strict=True):
        ours = phase.hours * spec.workers.most
        equal = ours * published / phase.targets_per_step
        total += equal
        cells = (PAPER[phase.name], published, phase.targets_per_step, ours, equal)
        rows.append(f"| {phase.name} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
    rows.append(f"| in all | {sum(PAPER.values()):,.0f} | | | {report.hours * report.workers:,.0f} | {total:,.0f} |")
    assert sum(PAPER.values()) == 20_736  # "20.7k A100 GPU hours"
    page = PAGE.read_text()
    for row in rows:
        assert row in page, f"docs/training.md lacks the row {row}"
