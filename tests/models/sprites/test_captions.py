"""Captions say what they demand, and can be read back."""

from itertools import combinations, islice, product

import pytest

from rayramid.models.errors import UserError
from rayramid.models.sprites.captions import Actor, Demand, held_out, parse, possible, write
from rayramid.models.sprites.draw import draw_scene, held_out_scenes
from rayramid.models.sprites.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES


def actor(words: str) -> Actor:
    colour, shape, *motion = words.split(" ", 2)
    return Actor(colour, shape, motion[0] if motion else None)


@pytest.mark.parametrize(
    ("actors", "passing", "caption"),
    [
        (["red circle"], None, "a red circle on a grey background"),
        (["red circle grows"], None, "a red circle grows on a grey background"),
        (
            ["white cross spins clockwise", "blue square moves slowly up"],
            None,
            "a white cross spins clockwise and a blue square moves slowly up on a grey background",
        ),
        (
            ["red circle moves quickly left", "blue square stands still"],
            "behind",
            "a red circle moves quickly left behind a blue square on a grey background",
        ),
        (
            ["red circle moves quickly left", "blue square stands still", "green cross shrinks"],
            "in front of",
            "a red circle moves quickly left in front of a blue square and a green cross shrinks on a grey background",
        ),
        (
            ["red circle", "blue square", "green cross"],
            None,
            "a red circle, a blue square and a green cross on a grey background",
        ),
    ],
)
def test_a_demand_is_written_and_read_back(actors, passing, caption):
    demand = Demand(tuple(map(actor, actors)), "grey", passing)
    assert write(demand) == caption
    assert parse(caption) == demand


@pytest.mark.parametrize("frames", [1, 9, 49])
def test_every_caption_of_the_world_is_read_back(frames):
    for index in range(300):
        demand = draw_scene(3, index, 128, 128, frames).demand
        assert parse(write(demand)) == demand


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a cat on a grey background",
        "a red circle on a red background",
        "a red circle spins clockwise on a grey background",  # nobody could see it
        "a red circle grows and a red square grows on a grey background",
        "a red circle and a blue square grows on a grey background",
        "a red circle grows behind a blue square on a grey background",
        "a red circle grows, a blue square grows on a grey background",
        "a red circle grows on a grey background, slowly",
    ],
)
def test_other_captions_are_refused(caption):
    with pytest.raises(UserError, match="sprites world"):
        parse(caption)


def test_there_are_thousands_of_captions():
    singles = [Actor(*words) for words in product(COLOURS, SHAPES, MOTIONS)]
    singles = [actor for actor in singles if possible(Demand((actor,), "grey"))]
    assert len(singles) * len(BACKGROUNDS) == 6 * (3 * 13 + 11) * 4
    assert len({write(draw_scene(0, index, 128, 128, 25).demand) for index in range(2500)}) > 1500


def test_one_in_ten_combinations_is_held_out_but_no_pair_of_words_is():
    actors = [Actor(*words) for words in product(COLOURS, SHAPES, MOTIONS)]
    trained = [actor for actor in actors if not held_out(Demand((actor,), "grey"))]
    assert 0.08 < 1 - len(trained) / len(actors) < 0.12
    for first, second in combinations(("colour", "shape", "motion"), 2):
        pairs = {(getattr(actor, first), getattr(actor, second)) for actor in actors}
        assert {(getattr(actor, first), getattr(actor, second)) for actor in trained} == pairs


def test_training_never_sees_a_held_out_caption():
    training = {write(draw_scene(0, index, 128, 128, 25).demand) for index in range(2000)}
    kept = [scene.demand for scene in islice(held_out_scenes(0, 128, 128, 25), 256)]
    assert all(map(held_out, kept))
    assert not any(held_out(parse(caption)) for caption in training)
    assert len(set(map(write, kept))) == 256
    assert not training & set(map(write, kept))
    assert {len(demand.actors) for demand in kept} == {1, 2, 3}
