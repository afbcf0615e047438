"""The world of sprites: what the truth says is what the frames show."""

import json
from pathlib import Path

import numpy as np
import pytest

from rayramid.models.errors import UserError
from rayramid.models.media.read import read_frames
from rayramid.models.sprites import COLOURS, DIRECTIONS, MAX_SPEED, MOTIONS, SHAPES, render, truth, write_sprites

WORLD = [truth(0, index, 128, 96, 33) for index in range(200)]
SPRITES = [sprite for scene in WORLD for sprite in scene.sprites]


def test_the_same_seed_and_index_are_the_same_clip() -> None:
    frames, caption = render(3, 5, 48, 40, 9)
    again, caption_again = render(3, 5, 48, 40, 9)
    assert frames.shape == (9, 40, 48, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, again)
    assert caption == caption_again
    assert not np.array_equal(frames, render(4, 5, 48, 40, 9)[0])
    assert not np.array_equal(frames, render(3, 6, 48, 40, 9)[0])


def test_every_shape_colour_motion_and_number_occurs() -> None:
    assert {sprite.shape for sprite in SPRITES} == set(SHAPES)
    assert {sprite.colour for sprite in SPRITES} == set(COLOURS)
    assert {sprite.motion for sprite in SPRITES} == set(MOTIONS)
    assert {len(scene.sprites) for scene in WORLD} == {1, 2, 3}


def test_the_caption_names_what_is_there() -> None:
    for scene in WORLD:
        for sprite in scene.sprites:
            assert f" {sprite.colour} {sprite.shape} {sprite.motion}" in f" {scene.caption}"
        assert scene.caption.endswith(f" over a {scene.background} background")
        assert scene.caption.count(" a ") + scene.caption.count(" an ") == len(scene.sprites)
        assert "a orange" not in scene.caption


def test_an_image_says_nothing_about_motion() -> None:
    for index in range(20):
        scene = truth(0, index, 64, 64, 1)
        assert not any(motion in scene.caption for motion in MOTIONS)


def test_sprites_stay_inside_apart_and_slow() -> None:
    for scene in WORLD:
        for number, sprite in enumerate(scene.sprites):
            positions = sprite.positions_T2
            assert positions.shape == (33, 2)
            assert positions.min() >= sprite.radius
            assert (positions.max(0) <= [127 - sprite.radius, 95 - sprite.radius]).all()
            assert np.linalg.norm(np.diff(positions, axis=0), axis=1).max() <= MAX_SPEED + 1e-9
            for other in scene.sprites[:number]:
                apart = np.linalg.norm(positions - other.positions_T2, axis=1)
                assert apart.min() > sprite.radius + other.radius


@pytest.mark.parametrize("motion", MOTIONS)
def test_motions_are_what_their_names_say(motion: str) -> None:
    for sprite in (sprite for sprite in SPRITES if sprite.motion == motion):
        way = np.diff(sprite.positions_T2, axis=0)
        if motion in DIRECTIONS:
            assert (way @ np.array(DIRECTIONS[motion]) > 0.2).all()
            assert np.allclose(way, way[0])
        elif motion.startswith("circles"):
            # With y pointing down, turning right (clockwise) has a positive cross product.
            turn = way[:-1, 0] * way[1:, 1] - way[:-1, 1] * way[1:, 0]
            assert (turn > 0).all() if motion == "circles clockwise" else (turn < 0).all()
            assert np.allclose(np.linalg.norm(way, axis=1), np.linalg.norm(way[0]))
        elif motion == "stands still":
            assert (way == 0).all()
        else:
            assert (way[:, 1] == 0).all()
            assert way[:, 0].min() < 0 < way[:, 0].max()


def test_frames_show_each_sprite_in_its_colour_where_it_is_said_to_be() -> None:
    for index in range(12):
        scene = truth(1, index, 96, 96, 17)
        frames, caption = render(1, index, 96, 96, 17)
        assert caption == scene.caption
        for sprite in scene.sprites:
            for number in (0, 8, 16):
                x, y = np.rint(sprite.positions_T2[number]).astype(int)
                assert np.abs(frames[number, y, x].astype(int) - COLOURS[sprite.colour]).max() <= 1


def test_the_middle_of_the_coloured_pixels_is_the_position() -> None:
    # Circles, squares and diamonds are symmetric, so their centre of mass is their centre.
    for scene in WORLD[:60]:
        if len(scene.sprites) > 1 or scene.sprites[0].shape == "triangle":
            continue
        [sprite] = scene.sprites
        frame = render(0, WORLD.index(scene), 128, 96, 33)[0][20].astype(float)
        inside = np.linalg.norm(frame - COLOURS[sprite.colour], axis=2) < 25
        y, x = np.nonzero(inside)
        assert np.abs([x.mean(), y.mean()] - sprite.positions_T2[20]).max() < 0.6


def test_edges_are_two_pixels_soft() -> None:
    squares = ((scene, scene.sprites[0]) for scene in WORLD if scene.sprites[0].shape == "square")
    scene, square = next(squares)
    frame = render(0, WORLD.index(scene), 128, 96, 33)[0][0].astype(float)
    x, y = np.rint(square.positions_T2[0]).astype(int)
    half = square.radius / np.sqrt(2)
    across = frame[y, x : int(x + half + 6)]
    near = np.linalg.norm(across - COLOURS[square.colour], axis=1)
    between = (near > 0.05 * near.max()) & (near < 0.9 * near.max())
    assert 1 <= between.sum() <= 2


@pytest.mark.parametrize(("width", "height", "frames"), [(32, 32, 1), (32, 200, 2), (320, 192, 241), (50, 33, 9)])
def test_any_size_and_length(width: int, height: int, frames: int) -> None:
    for index in range(30):
        for sprite in truth(0, index, width, height, frames).sprites:
            assert sprite.positions_T2.min() >= sprite.radius
            assert (sprite.positions_T2.max(0) <= np.array([width, height]) - 1 - sprite.radius).all()
    with pytest.raises(UserError, match="31x64"):
        truth(0, 0, 31, 64, 9)


def test_written_clips_are_nearly_lossless_and_listed(tmp_path: Path) -> None:
    manifest = write_sprites(tmp_path / "sprites", 3, seed=2, width=64, height=48, frames=9, fps=12)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [row["video"] for row in rows] == [f"sprites-2-{index:06d}.mp4" for index in range(3)]
    for index, row in enumerate(rows):
        assert row["caption"] == truth(2, index, 64, 48, 9).caption
        assert row["licence"] == "CC0-1.0"
        frames = np.concatenate(list(read_frames(manifest.parent / row["video"])))
        made = render(2, index, 64, 48, 9)[0]
        assert frames.shape == made.shape
        mse = np.mean((frames.astype(float) - made) ** 2)
        assert 10 * np.log10(255**2 / mse) > 30, "4:2:0 blurs the colour of edges, no more"
