"""What README and docs say was measured is what the committed results say."""

import json
from pathlib import Path

from rayramid.platform.evaluation.results import Share, lines

ROOT = Path(__file__).parents[1]
SPRITES = json.loads((ROOT / "docs/results/sprites.json").read_text(encoding="utf-8"))


def test_results_tell_what_made_them():
    assert SPRITES["command"].startswith("rayramid eval infra/specs/eval-sprites.yaml")
    assert len(SPRITES["revision"]) >= 7
    assert SPRITES["seed"] == SPRITES["spec"]["seed"]
    assert {"processor", "cpus", "torch"} <= SPRITES["machine"].keys()


def test_the_page_of_the_sprites_world_shows_every_line_of_the_evaluation():
    page = (ROOT / "docs/sprites.md").read_text(encoding="utf-8")
    assert "\n".join(f"    {line}" for line in lines(SPRITES)) in page


def test_the_readme_quotes_the_evaluation():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for length in ("17", "49"):
        share = SPRITES["text"][length]["fully_right"]
        quote = f"{Share(share['right'], share['of'])} over {length} frames"
        assert " ".join(quote.split()) in readme
