"""Scenes: drawn by seed, inside the frame, apart, slow; and the laws that move sprites."""

import numpy as np
import pytest

from rayramid.models.errors import UserError
from rayramid.models.sprites.captions import Actor
from rayramid.models.sprites.draw import EDGE, MAX_SPEED, draw_scene
from rayramid.models.sprites.scene import Sprite, fold, track
from rayramid.models.sprites.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

WORLD = [draw_scene(0, index, 128, 96, 49) for index in range(400)]


def test_the_same_seed_and_index_are_the_same_scene():
    assert draw_scene(3, 5, 48, 40, 9) == draw_scene(3, 5, 48, 40, 9)
    assert draw_scene(3, 5, 48, 40, 9) != draw_scene(4, 5, 48, 40, 9)
    assert draw_scene(3, 5, 48, 40, 9) != draw_scene(3, 6, 48, 40, 9)


def test_every_word_and_number_of_sprites_occurs():
    actors = [actor for scene in WORLD for actor in scene.demand.actors]
    assert {actor.shape for actor in actors} == set(SHAPES)
    assert {actor.colour for actor in actors} == set(COLOURS)
    assert {actor.motion for actor in actors} == set(MOTIONS)
    assert {scene.background for scene in WORLD} == set(BACKGROUNDS)
    assert {len(scene.sprites) for scene in WORLD} == {1, 2, 3}
    assert {scene.passing for scene in WORLD} == {None, "behind", "in front of"}


def test_nothing_moves_in_an_image():
    for index in range(50):
        assert {actor.motion for actor in draw_scene(0, index, 64, 64, 1).demand.actors} == {None}


@pytest.mark.parametrize(("width", "height", "frames"), [(128, 96, 49), (320, 192, 121), (50, 33, 9), (32, 200, 1)])
def test_sprites_stay_inside_and_slow_at_any_size(width, height, frames):
    for index in range(60):
        for sprite in draw_scene(1, index, width, height, frames).sprites:
            seen = track(sprite, width, height, frames)
            for at_T, side in ((seen.x_T, width), (seen.y_T, height)):
                assert (at_T >= seen.radius_T - 1e-9).all()
                assert (at_T <= side - 1 - seen.radius_T + 1e-9).all()
            assert np.hypot(np.diff(seen.x_T), np.diff(seen.y_T)).max(initial=0) <= MAX_SPEED + 1e-9
            assert np.abs(np.diff(seen.radius_T)).max(initial=0) <= MAX_SPEED + 1e-9
            assert (np.abs(np.diff(seen.angle_T)) * sprite.radius).max(initial=0) <= MAX_SPEED + 1e-9


def test_only_sprites_that_pass_meet_and_they_do_so_in_25_frames():
    for scene in WORLD:
        tracks = [track(sprite, 128, 96, 49) for sprite in scene.sprites]
        for number, one in enumerate(tracks):
            for earlier, other in enumerate(tracks[:number]):
                between_T = np.hypot(one.x_T - other.x_T, one.y_T - other.y_T) - one.radius_T - other.radius_T
                if scene.passing and (earlier, number) == (0, 1):
                    assert between_T[0] > 0
                    assert between_T[:25].min() < -one.radius_T[0]
                else:
                    assert between_T.min() > EDGE


def test_what_moves_keeps_its_way_for_twelve_frames():
    for scene in WORLD:
        for sprite in scene.sprites:
            if sprite.motion.kind == "moves" and not scene.passing:
                seen = track(sprite, 128, 96, 13)
                way = np.stack([np.diff(seen.x_T), np.diff(seen.y_T)], 1)
                assert np.allclose(way, np.array(sprite.motion.direction) * sprite.rate)


def test_a_way_is_reflected_at_both_ends():
    way = np.array([2.0, 5, 9, 10, 11, 15, 19, 20, 24, -1])
    assert fold(way, 2, 10).tolist() == [2, 5, 9, 10, 9, 5, 3, 4, 8, 5]


@pytest.mark.parametrize(
    ("motion", "rate", "expected"),
    [
        ("stands still", 0.0, {}),
        ("moves slowly left", 0.5, {"x_T": [40, 39.5, 39, 38.5, 38]}),
        ("moves quickly down", 1.0, {"y_T": [50, 51, 52, 53, 52]}),  # 63 - 10 is where it turns back
        ("spins clockwise", 0.05, {"angle_T": [0, 0.05, 0.1, 0.15, 0.2]}),
        ("spins counterclockwise", 0.05, {"angle_T": [0, -0.05, -0.1, -0.15, -0.2]}),
        ("grows", 3.0, {"radius_T": [10, 13, 16, 18, 18]}),
        ("shrinks", 1.0, {"radius_T": [10, 9, 8, 7, 6]}),
    ],
)
def test_motions_are_what_their_names_say(motion, rate, expected):
    seen = track(Sprite(Actor("red", "square", motion), 40, 50, 10, rate), 128, 64, 5)
    rest = {"x_T": [40] * 5, "y_T": [50] * 5, "radius_T": [10] * 5, "angle_T": [0] * 5}
    for name, values in {**rest, **expected}.items():
        assert getattr(seen, name).tolist() == pytest.approx(values), name


def test_what_can_not_be_drawn_is_refused():
    with pytest.raises(UserError, match="31x64"):
        draw_scene(0, 0, 31, 64, 9)
    with pytest.raises(UserError, match="an image has none"):
        draw_scene(0, 0, 64, 64, 1, kept_from_training=True)
