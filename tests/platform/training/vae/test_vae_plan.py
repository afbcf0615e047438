from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayramid.platform.training.vae.plan import Visit, deal, phase_seed, plan
from rayramid.platform.training.vae.spec import Phase


def phase(**fields):
    return Phase.model_validate(
        {"name": "p", "data": ["/nowhere"], "steps": 10, "size": "64x64", "clips_per_step": 4, "image_share": 0.25}
        | fields
    )


def test_a_step_is_a_function_of_its_number():
    assert plan(5, 3, phase(), 1, 7) == plan(5, 3, phase(), 1, 7)
    assert plan(5, 3, phase(), 1, 7) != plan(5, 3, phase(), 2, 7)
    assert phase_seed(0, phase()) != phase_seed(0, phase(name="q"))


def test_every_video_is_visited_once_per_epoch_and_each_time_otherwise():
    visits = [visit for step in range(10) for visit in plan(6, 2, phase(), 0, step)]
    videos = [visit for visit in visits if visit.kind == "video"]
    assert len(videos) == 30
    for epoch in range(5):
        assert sorted(visit.row for visit in videos[6 * epoch : 6 * epoch + 6]) == list(range(6))
    assert len({visit.key for visit in visits}) == len(visits)


@given(share=st.floats(0, 1), clips=st.integers(1, 9))
def test_images_keep_their_share_and_steps_their_size(share, clips):
    found = phase(image_share=share, clips_per_step=clips)
    steps = [plan(7, 5, found, 0, step) for step in range(200)]
    assert {len(visits) for visits in steps} == {clips}
    images = sum(visit.kind == "image" for visits in steps for visit in visits)
    assert abs(images - share * 200 * clips) <= 1
    assert all(visits == sorted(visits, key=lambda visit: visit.kind == "image") for visits in steps)


@given(videos=st.integers(0, 9), images=st.integers(0, 5), world=st.integers(1, 5), time_split=st.integers(1, 4))
def test_every_part_of_every_visit_is_done_by_exactly_one_rank(videos, images, world, time_split):
    visits = [Visit("video", i, i) for i in range(videos)] + [Visit("image", i, 100 + i) for i in range(images)]
    dealt = [deal(visits, 17, world, rank, time_split) for rank in range(world)]
    done = Counter((part.visit.key, part.part) for parts in dealt for part in parts)
    split = min(time_split, world)
    wanted = [(v.key, part) for v in visits for part in range(split if v.kind == "video" else 1)]
    assert done == Counter(wanted)
    # Ranks that share a video do so in the same order: their convolutions wait for each other.
    for first in range(0, world - split + 1, split):
        orders = [[p.visit.key for p in dealt[r] if p.visit.kind == "video"] for r in range(first, first + split)]
        assert all(order == orders[0] for order in orders)


def test_images_go_where_the_least_is_to_do():
    visits = [Visit("video", 0, 0), Visit("image", 0, 1), Visit("image", 1, 2)]
    assert [[p.visit.key for p in deal(visits, 17, 2, rank, 1)] for rank in range(2)] == [[0], [1, 2]]


def test_a_split_is_over_time():
    assert [(p.part, p.parts) for rank in range(2) for p in deal([Visit("video", 0, 0)], 17, 2, rank, 2)] == [
        (0, 2),
        (1, 2),
    ]


def test_a_phase_says_what_is_wrong_with_it():
    with pytest.raises(ValueError, match="short_side 32 is less than the crop 64x64 needs"):
        phase(short_side=32)
    with pytest.raises(ValueError, match="a size is WIDTHxHEIGHT"):
        phase(size="64")
