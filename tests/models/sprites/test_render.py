"""Frames show each sprite in its colour, where and how it is said to be."""

import hashlib

import numpy as np
import pytest

from rayramid.models.sprites.captions import Actor
from rayramid.models.sprites.draw import draw_scene
from rayramid.models.sprites.render import background, cover, render
from rayramid.models.sprites.scene import Scene, Sprite, track
from rayramid.models.sprites.vocabulary import BACKGROUNDS, COLOURS, SHAPES


def of(*sprites, passing=None):
    return Scene(64, 48, "grey", (1.0, 0.0), sprites, passing)


def test_frames_are_a_function_of_their_number():
    for index in range(10):
        scene = draw_scene(0, index, 96, 64, 17)
        whole = render(scene, 17)
        assert whole.shape == (17, 64, 96, 3)
        assert whole.dtype == np.uint8
        assert np.array_equal(render(scene, 5, start=12), whole[12:])


def test_sprites_have_their_colours_and_the_rest_is_background():
    for index in range(40):
        scene = draw_scene(1, index, 128, 128, 17)
        frames = render(scene, 17)
        outside = np.ones((17, 128, 128), bool)
        y, x = np.mgrid[:128, :128]
        for sprite in scene.sprites:
            seen = track(sprite, 128, 128, 17)
            for number in range(17):
                at = (y - seen.y_T[number], x - seen.x_T[number])
                outside[number] &= np.hypot(*at) > seen.radius_T[number] + 2
                middle = frames[number, round(seen.y_T[number]), round(seen.x_T[number])]
                assert np.array_equal(middle, COLOURS[sprite.actor.colour])
        assert np.abs(frames - background(scene))[outside].max() <= 0.5


def test_the_background_is_a_colour_shaded_to_one_side():
    grey = background(of())
    assert grey[:, :, 0].std(axis=0).max() < 1e-3
    assert grey[0, 0] == pytest.approx(np.array(BACKGROUNDS["grey"]) * 0.88)
    assert grey[0, -1] == pytest.approx(np.array(BACKGROUNDS["grey"]) * 1.12)
    assert (np.diff(grey[0, :, 0]) > 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_their_centre_of_mass_in_the_middle_and_reach_their_radius(shape):
    y, x = np.mgrid[-30:31, -30:31].astype(float)
    seen = cover(shape, x, y, 20.0, 0.0)
    assert abs((seen * x).sum() / seen.sum()) < 1e-6
    assert abs((seen * y).sum() / seen.sum()) < 0.1
    assert 18.5 < np.hypot(x, y)[seen > 0.5].max() < 20.5


def test_shapes_of_one_size_have_about_the_same_area():
    y, x = np.mgrid[-40:41, -40:41].astype(float)
    areas = {shape: cover(shape, x, y, 14 * reach, 0.0).sum() for shape, reach in SHAPES.items()}
    assert max(areas.values()) < 1.35 * min(areas.values()), areas


def test_a_triangle_points_up_and_turns_clockwise():
    y, x = np.mgrid[-30:31, -30:31].astype(float)
    upright = cover("triangle", x, y, 20.0, 0.0)
    assert upright[12, 30] > 0.5 > upright[48, 30]
    quarter = cover("triangle", x, y, 20.0, np.pi / 2)
    assert quarter[30, 48] > 0.5 > quarter[30, 12], "its tip points right"


def test_edges_are_two_pixels_soft():
    across = cover("square", np.arange(0, 30.0), np.zeros(30), 10 * np.sqrt(2), 0.0)
    assert across[8:13].tolist() == pytest.approx([1, 1, 0.5, 0, 0])
    assert cover("circle", np.array([9.5, 10.5]), np.zeros(2), 10.0, 0.0).tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(("passing", "seen"), [("behind", "blue"), ("in front of", "red")])
def test_one_sprite_covers_the_other_as_the_caption_says(passing, seen):
    circle = Sprite(Actor("red", "circle", "moves quickly right"), 20, 24, 8, 1.0)
    square = Sprite(Actor("blue", "square", "stands still"), 30, 24, 8)
    frame = render(of(circle, square, passing=passing), 11)[10]
    assert tuple(frame[24, 30]) == COLOURS[seen]


def test_the_world_is_the_same_everywhere():
    """When this fails on purpose, raise `clip.EDITION`: addresses show something else than they did."""
    digest = hashlib.sha256()
    for index in range(20):
        scene = draw_scene(0, index, 64, 64, 25)
        digest.update(repr(scene.demand).encode())
        digest.update((render(scene, 3, 22) // 32).tobytes())
    assert digest.hexdigest()[:16] == "d82b2464a8e86390"
