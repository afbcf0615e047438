"""What README and docs say was measured is what the committed results say."""

import json
from pathlib import Path
from typing import Any

import pytest

from rayramid.platform.evaluation import drift
from rayramid.platform.evaluation.distances.run import lines as distance_lines
from rayramid.platform.evaluation.results import Share, lines

ROOT = Path(__file__).parents[1]
SPRITES, HOLDING = (
    json.loads((ROOT / f"docs/results/{name}.json").read_text(encoding="utf-8")) for name in ("sprites", "holding")
)


def test_results_tell_what_made_them():
    assert SPRITES["command"].startswith("rayramid eval infra/specs/eval-sprites.yaml")
    assert SPRITES["seed"] == SPRITES["spec"]["seed"]
    assert HOLDING["command"] == "python tests/benchmarks/holding.py docs/results/holding.json"
    for results in (SPRITES, HOLDING):
        assert len(results["revision"]) >= 7
        assert {"processor", "cpus", "torch"} <= results["machine"].keys()


def test_the_page_of_the_sprites_world_shows_every_line_of_the_evaluation():
    page = (ROOT / "docs/sprites.md").read_text(encoding="utf-8")
    assert "\n".join(f"    {line}" for line in lines(SPRITES)) in page


def test_the_readme_quotes_the_evaluation():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for length in ("17", "49"):
        share = SPRITES["text"][length]["fully_right"]
        quote = f"{Share(share['right'], share['of'])} over {length} frames"
        assert " ".join(quote.split()) in readme


def test_the_page_about_holding_a_model_shows_what_was_measured():
    page = (ROOT / "docs/holding.md").read_text(encoding="utf-8")
    found = {line["measure"]: line for line in HOLDING["measures"]}
    ways = {
        "bfloat16": "`dtype: bfloat16`",
        "int8": "`weights: int8`",
        "int8_bfloat16": "`dtype: bfloat16`, `weights: int8`",
        "offload": "`offload: [blocks]`",
        "ranks": "`ranks: 2`, each",
    }
    assert len(found) == 3 * len(ways)
    assert f"| fp32 | {found['int8_bytes']['other'] / 1e6:.1f} MB | 1 | |" in page
    for way, name in ways.items():
        memory, time = found[f"{way}_bytes"]["ours"] / 1e6, 1 / found[f"{way}_seconds"]["ratio"]
        difference = found[f"{way}_difference"]["ours"]
        differs = f"{100 * difference:.2g} %" if difference > 1e-9 else "none"
        assert f"| {name} | {memory:.1f} MB | {time:.2f} | {differs} |" in page
    assert f"{HOLDING['machine']['processor']}, {HOLDING['machine']['cpus']} cores" in page


def results_of(name: str) -> dict[str, Any]:
    return json.loads((ROOT / f"docs/results/{name}.json").read_text(encoding="utf-8"))


def as_block(lines: list[str]) -> str:
    return "\n".join(f"    {line}".rstrip() for line in lines)


def test_the_page_on_evaluation_shows_the_drift_of_its_suite():
    suite = results_of("suite")
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    assert suite["command"] in page
    assert as_block(drift.lines(suite["drift"])) in page


@pytest.mark.parametrize("name", ["distances-floor", "distances", "distances-1-step"])
def test_the_page_on_evaluation_shows_each_distance(name):
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    distances = results_of(name)
    assert as_block(distance_lines(distances)) in page
    assert {"revision", "machine", "created", "spec"} <= distances.keys()


def test_the_page_of_the_sprites_world_tells_what_each_training_brought():
    page = (ROOT / "docs/sprites.md").read_text(encoding="utf-8")
    runs = results_of("sprites-training")
    found_after = (results_of("sprites-coarse"), results_of("sprites-fine"), SPRITES)
    for run, found in zip(runs, found_after, strict=True):
        loss = list(run["held_out_loss"].values())[-1]
        shares = [found["text"][length]["fully_right"] for length in ("17", "25", "49")]
        shares += [found["images"][length]["kept"] for length in ("17", "49")]
        cells = " | ".join(f"{100 * share['right'] / share['of']:.1f} %" for share in shares)
        name = Path(run["command"].split()[-1]).name
        assert f"| `{name}` | {loss:.4f} | {cells} |".replace("| 0.", "| .") in page


def test_the_page_of_the_sprites_world_tells_whether_motions_are_bound_to_shapes():
    page = (ROOT / "docs/sprites.md").read_text(encoding="utf-8")
    binding = results_of("binding")
    assert binding["command"] in page
    ratios = {line["measure"]: line["ratio"] for line in binding["measures"]}
    for model, name in (("runs/sprites/fine/model", "before"), ("rayramid://sprites", "the shipped model")):
        cells = [f"+{100 * (ratios[f'{model}/{wrong}/level_1'] - 1):.1f} %" for wrong in ("exchanged", "reversed")]
        assert f"| {name} | {' | '.join(cells)} |" in page


def test_the_page_of_the_sprites_world_shows_which_stage_loses_an_image_and_a_video():
    page = (ROOT / "docs/sprites.md").read_text(encoding="utf-8")
    stages = results_of("stages")
    assert stages["command"] in page
    for prefix, what in (("", "images"), ("later_", "videos from first frames")):
        found = [line for line in stages["measures"] if line["measure"].startswith(f"rayramid://sprites/{prefix}level")]
        shares = [found[0]["other"], *(line["ours"] for line in found)]
        assert f"| {what} | {' | '.join(f'{100 * share:.0f} %' for share in shares)} |" in page


def test_the_page_of_the_sprites_world_shows_which_words_are_drawn_right():
    page = (ROOT / "docs/sprites.md").read_text(encoding="utf-8")
    words = results_of("words")
    assert words["command"] in page
    assert len(words["measures"]) == 10
    for line in words["measures"]:
        assert f"| {line['measure'].removeprefix('rayramid://sprites/')} | {100 * line['ours']:.0f} % |" in page


def test_the_readme_quotes_the_benchmarks():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    kept = results_of("benchmarks")
    quoted = {
        ("training", "shared_context_flops_768p_kall"): "for each stage of each unit: operations",
        ("training", "shared_context_seconds_kall"): "the same with a small model: time",
        ("training", "packed_seconds"): "against padded batches: time",
        ("training", "balance_64_ranks"): "against bins dealt in turn",
        ("checkpoints", "checkpoint_pause"): "against a save that is waited for",
        ("models", "cached_sampling_31"): "text and history computed anew: time",
        ("serving", "batching"): "against one after another: time",
    }
    for (benchmark, measure), words in quoted.items():
        (line,) = (line for line in kept[benchmark]["measures"] if line["measure"] == measure)
        assert f"{words} | {line['ratio']:.2f} |" in readme, measure
    assert all(record["machine"]["processor"] in readme for record in kept.values())
