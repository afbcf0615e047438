"""What is counted of a phase is what its steps read in the long run."""

from collections import Counter
from itertools import islice

import pyarrow as pa
import pytest

from rayramid.models.presets import preset
from rayramid.platform.training.census import take_census
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.index import ClipTable, Index
from rayramid.platform.training.plan import steps
from rayramid.platform.training.spec.curriculum import Phase

PHASE = Phase.model_validate(
    {"name": "p", "data": ["/a", "/b"], "steps": 100, "tokens_per_bin": 500, "bins_per_step": 4, "image_share": 0.25}
)


def table(grids, root, kind="video", weight=1.0):
    columns = {
        "latent_id": [f"{kind}{root}-{i}" for i in range(len(grids))],
        "t": [t for t, _, _ in grids],
        "h": [h for _, h, _ in grids],
        "w": [w for _, _, w in grids],
        "caption_ids": [["a", "b"]] * len(grids),
        "text_lens": [[6, 10]] * len(grids),
    }
    measure = measure_for(preset("tiny"))
    return ClipTable(root, kind, pa.table(columns), range(len(grids)), weight, ("empty", 1), 1, measure)


INDEX = Index(
    (table([(3, 8, 8)] * 5 + [(5, 8, 16)] * 3, 0), table([(3, 8, 8)] * 2, 1, weight=3.0)),
    (table([(1, 8, 8)] * 2 + [(1, 16, 16)] * 2, 0, kind="image"),),
)


def test_shares_and_means_are_those_of_a_thousand_steps():
    census = take_census(INDEX, PHASE)
    assert [(part.kind, part.grid, part.clips) for part in census.parts] == [
        ("image", (1, 8, 8), 2), ("video", (3, 8, 8), 7), ("video", (5, 8, 16), 3), ("image", (1, 16, 16), 2)
    ]  # fmt: skip
    items = [item for bins in islice(steps(INDEX, PHASE, seed=0), 1000) for b in bins for item in b.items]
    total = sum(item.size.tokens for item in items)
    assert census.flops_per_token == pytest.approx(sum(item.size.flops for item in items) / total, rel=0.01)
    assert census.units_per_token == pytest.approx(sum(item.units for item in items) / total, rel=0.01)
    tokens, visits = Counter(), Counter()
    for item in items:
        name = (item.grid[1], item.grid[2])
        tokens[name] += item.size.tokens
        visits[name] += 1
    wide = next(part for part in census.parts if part.grid == (5, 8, 16))
    assert wide.share == pytest.approx(tokens[8, 16] / total, rel=0.02)
    assert wide.tokens == pytest.approx(tokens[8, 16] / visits[8, 16], rel=0.02)
    assert sum(part.share for part in census.parts) == pytest.approx(1)


def test_an_epoch_is_one_visit_of_every_video_times_its_weight():
    census = take_census(INDEX, PHASE)
    items = [item for bins in islice(steps(INDEX, PHASE, seed=0), 1000) for b in bins for item in b.items]
    visits = sum(item.clip.startswith("video") for item in items)
    assert sum(item.size.tokens for item in items) / census.epoch_tokens == pytest.approx(
        visits / (8 + 2 * 3.0), rel=0.01
    )
