"""The plan: pure, every visit once, images at their share, the same for any number of workers."""

import json
from collections import Counter
from itertools import chain, islice

import pyarrow as pa
import pytest

from rayramid.models.errors import UserError
from rayramid.models.presets import preset
from rayramid.models.sequence import training_spans
from rayramid.platform.training.index import ClipTable, Index, Size
from rayramid.platform.training.learner import weights_by_level
from rayramid.platform.training.plan import Bin, Bookmark, deal, marked_steps, plan, steps
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.visits import Item, target_windows


def measure(latents, height, width, text, first_unit, units):
    tokens = text + (first_unit + units) * height * width // 4
    return Size(tokens, tokens + tokens**2 / 1000)


def table(lengths, root=0, kind="video", weight=1.0, prefix="clip", measure=measure):
    columns = {
        "latent_id": [f"{prefix}-{i}" for i in range(len(lengths))],
        "t": lengths,
        "h": [8] * len(lengths),
        "w": [8] * len(lengths),
        "caption_ids": [[f"{prefix}-{i}-a", f"{prefix}-{i}-b"] for i in range(len(lengths))],
        "text_lens": [[5, 7]] * len(lengths),
    }
    return ClipTable(root, kind, pa.table(columns), range(len(lengths)), weight, ("empty", 1), 1, measure)


def phase(**fields):
    return Phase.model_validate(
        {"name": "p", "data": ["/d"], "steps": 100, "tokens_per_bin": 400, "bins_per_step": 4} | fields
    )


def visits(batches):
    return [item for bins in batches for b in bins for item in b.items]


MIXED = Index((table([4, 9, 2, 6, 6, 3, 12]),), (table([1] * 5, kind="image", prefix="image"),))


def test_a_step_is_the_same_alone_and_in_a_run():
    run = list(islice(steps(MIXED, phase(), seed=3), 40))
    assert [plan(MIXED, phase(), 3, step) for step in (0, 1, 17, 39)] == [run[0], run[1], run[17], run[39]]
    assert plan(MIXED, phase(), 4, 0) != run[0]
    assert plan(MIXED, phase(name="another"), 3, 0) != run[0]


def test_a_bookmark_goes_on_as_from_the_start():
    index = Index((*MIXED.videos, table([5, 3], 1, weight=2.0)), MIXED.images)
    run = list(islice(marked_steps(index, phase(), seed=3), 60))
    assert any(mark.waiting for _, mark in run)
    for step in (0, 7, 33, 57):
        _, mark = run[step]
        kept = Bookmark.from_json(json.loads(json.dumps(mark.to_json())))
        assert kept == mark
        assert list(islice(marked_steps(index, phase(), 3, step, kept), 3)) == run[step : step + 3]


def test_a_bookmark_saves_the_planning_of_what_comes_before():
    visits = Counter()

    def counting(*visit):
        visits["all"] += 1
        return measure(*visit)

    index = Index((table([4, 9, 2, 6, 6, 3, 12], measure=counting),), ())
    *_, (_, mark) = islice(marked_steps(index, phase(), seed=3), 500)
    visits.clear()
    next(marked_steps(index, phase(), 3, 499, mark))
    assert 0 < visits["all"] < 200


def test_a_bookmark_of_another_phase_or_of_a_later_step_is_of_no_use():
    run = list(islice(marked_steps(MIXED, phase(), seed=3), 40))
    _, late = run[39]
    assert late.step > 3
    assert next(marked_steps(MIXED, phase(), 3, 3, late)) == run[3]
    other = phase(name="another")
    assert next(marked_steps(MIXED, other, 3, 39, late)) == list(islice(marked_steps(MIXED, other, 3), 40))[39]


def test_every_step_has_its_bins_and_no_bin_overflows():
    for bins in islice(steps(MIXED, phase(), seed=0), 50):
        assert len(bins) == 4
        assert all(0 < b.tokens <= 400 for b in bins)


def test_every_video_is_visited_once_per_epoch():
    index = Index((table([3] * 400),), ())
    seen = Counter((item.clip, item.visit) for item in visits(islice(steps(index, phase(), seed=1), 60)))
    assert max(seen.values()) == 1
    assert Counter(visit for _, visit in seen)[0] == 400
    # The newest epochs are under way, all older ones are complete.
    newest = max(visit for _, visit in seen)
    assert newest > 4
    assert all((f"clip-{i}", visit) in seen for i in range(400) for visit in range(newest - 1))


def test_every_clip_shows_up_before_the_epoch_after_the_next_begins():
    stream = [item.visit for item in visits(islice(steps(Index((table([3] * 400),), ()), phase(), seed=1), 60))]
    assert stream.index(1) >= 300


@pytest.mark.parametrize("share", [0.125, 0.5])
def test_images_keep_their_share_of_the_tokens(share):
    drawn = visits(islice(steps(MIXED, phase(image_share=share), seed=0), 1000))
    images = sum(item.size.tokens for item in drawn if item.clip.startswith("image"))
    assert images / sum(item.size.tokens for item in drawn) == pytest.approx(share, abs=0.005)


def test_the_share_of_images_follows_what_there_is():
    images = Index((), MIXED.images)
    videos = Index(MIXED.videos, ())
    assert all(item.clip.startswith("image") for item in visits([plan(images, phase(), 0, 0)]))
    assert all(item.clip.startswith("clip") for item in visits([plan(videos, phase(), 0, 0)]))
    with pytest.raises(UserError, match="asks for images"):
        plan(videos, phase(image_share=0.1), 0, 0)
    with pytest.raises(UserError, match="asks for videos"):
        plan(images, phase(image_share=0.1), 0, 0)
    with pytest.raises(UserError, match="no clips"):
        plan(Index((), ()), phase(), 0, 0)


def test_every_stage_has_its_share_of_the_loss_over_a_thousand_steps():
    weights = weights_by_level(phase(stage_weights=(1, 2, 5)), levels=3)
    shares = Counter()
    for item in visits(islice(steps(MIXED, phase(units_per_clip=3), seed=0), 1000)):
        for span in chain(*training_spans(preset("tiny"), item.first_unit + item.units, item.first_unit, item.units)):
            shares[span.level] += weights[span.level] * (span.kind == "target")
    total = sum(shares.values())
    assert {level: share / total for level, share in shares.items()} == pytest.approx({2: 1 / 8, 1: 2 / 8, 0: 5 / 8})


def test_weights_multiply_how_often_a_dataset_is_visited():
    index = Index((table([3] * 20), table([3] * 10, root=1, weight=4.0, prefix="other")), ())
    drawn = Counter(item.root for item in visits(islice(steps(index, phase(), seed=0), 200)))
    assert drawn[1] / drawn[0] == pytest.approx(10 * 4 / 20, rel=0.03)


def test_text_dropout_takes_the_empty_prompt():
    drawn = visits(islice(steps(MIXED, phase(text_dropout=0.2), seed=0), 500))
    assert sum(item.caption == "empty" for item in drawn) / len(drawn) == pytest.approx(0.2, abs=0.02)
    kept = Counter(item.caption[-1] for item in drawn if item.caption != "empty")
    assert kept["a"] / kept["b"] == pytest.approx(1, abs=0.15)


def test_noise_keys_belong_to_clip_and_visit():
    drawn = visits(islice(steps(MIXED, phase(), seed=0), 100))
    assert len({item.key for item in drawn}) == len({(item.clip, item.visit) for item in drawn}) == len(drawn)


def test_a_clip_that_does_not_fit_is_refused_with_the_number():
    # The last window of 12 units: 7 of text, 12 units of 16 tokens.
    with pytest.raises(
        UserError, match=r"phase 'p': a video with latents of 8x8x12 .* up to 199 tokens, tokens_per_bin is 100"
    ):
        plan(MIXED, phase(tokens_per_bin=100), 0, 0)


def test_every_unit_is_a_target_equally_often():
    assert target_windows(4, phase(units_per_clip=2)) == [(0, 1), (0, 2), (1, 2), (2, 2), (3, 1)]
    assert target_windows(2, phase(units_per_clip=2)) == target_windows(2, phase(units_per_clip=5)) == [(0, 2)]


def test_first_units_alone_are_targets_where_a_phase_says_so():
    first = phase(units_per_clip=2, first_units=3)
    assert target_windows(7, first) == target_windows(3, first) == [(0, 1), (0, 2), (1, 2), (2, 1)]
    assert target_windows(1, first) == [(0, 1)]
    drawn = list(visits(islice(steps(MIXED, first, seed=0), 300)))
    assert {item.first_unit + item.units for item in drawn} == {1, 2, 3}


def bins_of(*costs):
    return [
        Bin((Item(0, i, f"c{i}", "", 0, 1, 0, Size(1, float(cost)), (1, 8, 8), 1),)) for i, cost in enumerate(costs)
    ]


def test_deal_gives_the_costliest_to_the_least_busy():
    bins = bins_of(1, 8, 2, 7, 3, 6)
    assert [b.flops for b in deal(bins, 2)[0]] == [8, 3, 2]
    assert [b.flops for b in deal(bins, 2)[1]] == [7, 6, 1]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_number_of_workers_reads_the_same_global_step(world):
    for bins in islice(steps(MIXED, phase(), seed=0), 20):
        dealt = [b for mine in deal(bins, world) for b in mine]
        assert {b.items for b in dealt} == {b.items for b in bins}
        assert len(dealt) == len(bins)


def test_dealing_is_balanced_over_many_ranks():
    index = Index((table([2, 3, 5, 8, 13, 16] * 3000),), ())
    ratios = []
    for bins in islice(steps(index, phase(bins_per_step=64, tokens_per_bin=2000), seed=0), 30):
        costs = [sum(b.flops for b in mine) for mine in deal(bins, 64)]
        ratios.append(sum(costs) / 64 / max(costs))
    assert sum(ratios) / len(ratios) > 0.98
