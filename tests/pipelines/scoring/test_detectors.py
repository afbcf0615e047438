"""Each detector on clips made for it, through the whole of one decode's frames."""

import cv2
import numpy as np
import pytest

from rayramid.pipelines.scoring.hashes import content_hash, perceptual_hash
from rayramid.pipelines.scoring.motion import luma_of
from rayramid.pipelines.scoring.pixels import SIDE, pixel_scores

HEIGHT, WIDTH = 144, 256


def landscape(seed=0, height=2 * HEIGHT, width=2 * WIDTH):
    """A smooth coloured texture [H, W, 3] with slopes everywhere."""
    noise = np.random.default_rng(seed).random((height // 8 + 2, width // 8 + 2, 3))
    large = cv2.resize(noise, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)[:height, :width]
    return (40 + 170 * np.clip(large, 0, 1)).astype(np.uint8)


def view(picture, x, y, zoom=1.0):
    """HEIGHT x WIDTH pixels of a picture around a point, enlarged."""
    map_x, map_y = np.meshgrid(np.arange(WIDTH) - WIDTH / 2, np.arange(HEIGHT) - HEIGHT / 2)
    return cv2.remap(
        picture, (x + map_x / zoom).astype(np.float32), (y + map_y / zoom).astype(np.float32), cv2.INTER_LINEAR
    )


def panned(frames=8, speed=3.0):
    return np.stack([view(landscape(), 200 + speed * n, HEIGHT) for n in range(frames)])


def zoomed(frames=8):
    return np.stack([view(landscape(), WIDTH, HEIGHT, 1 + 0.02 * n) for n in range(frames)])


def still(frames=8):
    return np.repeat(view(landscape(), WIDTH, HEIGHT)[None], frames, axis=0)


def walkers(frames=8):
    """Textured things that move several ways before a ground that stays."""
    video = still(frames)
    for number, (x, y, dx, dy) in enumerate([(20, 20, 4, 0), (180, 70, -4, 1), (90, 90, 2, -4), (150, 10, 0, 4)]):
        thing = landscape(seed=1 + number, height=48, width=48)
        for n in range(frames):
            video[n, y + n * dy : y + n * dy + 48, x + n * dx : x + n * dx + 48] = thing
    return video


def barred(video, top=0, left=0):
    video = video.copy()
    video[:, :top], video[:, HEIGHT - top :], video[:, :, :left], video[:, :, WIDTH - left :] = 16, 16, 16, 16
    return video


def marked(video):
    """With a half-transparent word in the corner below on the right, as broadcasters' logos are."""
    white = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    cv2.putText(white, "LOGO", (196, 136), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    return np.stack([np.where(white, frame // 3 + 170, frame).astype(np.uint8) for frame in video])


@pytest.mark.parametrize("video", [panned(), zoomed()], ids=["pan", "zoom"])
def test_a_still_picture_that_the_camera_moves_over_is_fake_motion(video):
    scores = pixel_scores(video, fps=8)
    assert scores["motion"] > 0.01
    assert scores["zoom_pan"] > 0.95


def test_things_that_move_by_themselves_are_not():
    scores = pixel_scores(walkers(), fps=8)
    assert scores["motion"] > 0.01
    assert scores["zoom_pan"] < 0.3


def test_a_camera_that_moves_past_things_that_move_lies_between():
    both = np.stack([np.roll(frame, 3 * number, axis=1) for number, frame in enumerate(walkers())])
    share = pixel_scores(both, fps=8)["zoom_pan"]
    assert pixel_scores(walkers(), fps=8)["zoom_pan"] < share < pixel_scores(panned(), fps=8)["zoom_pan"]


def test_where_nothing_moves_or_nothing_has_texture_the_camera_is_not_known():
    assert pixel_scores(still(), fps=8)["zoom_pan"] is None
    plain = np.full((8, HEIGHT, WIDTH, 3), 90, np.uint8)
    for number in range(8):
        plain[number, 40:80, 20 + 4 * number : 60 + 4 * number] = 200
    assert pixel_scores(plain, fps=8)["zoom_pan"] is None


def test_motion_is_the_same_at_twice_the_size():
    large = np.stack([cv2.resize(frame, None, fx=2, fy=2) for frame in panned()])
    small, double = pixel_scores(panned(), fps=8)["motion"], pixel_scores(large, fps=8)["motion"]
    assert small == pytest.approx(3 * 8 / np.hypot(HEIGHT, WIDTH), rel=0.2)
    assert double == pytest.approx(small, rel=0.1)


@pytest.mark.parametrize(
    ("bars", "share"),
    [({}, 0.0), ({"top": 18}, 0.25), ({"left": 32}, 0.25), ({"top": 18, "left": 32}, 1 - 0.75**2)],
    ids=["none", "letterbox", "pillarbox", "both"],
)
def test_black_bars_are_measured_as_a_share_of_the_picture(bars, share):
    assert pixel_scores(barred(panned(), **bars), fps=8)["letterbox"] == pytest.approx(share, abs=0.01)


def test_a_dark_scene_is_no_bar_and_a_black_one_is_nothing_else():
    assert pixel_scores(panned() // 3 + 20, fps=8)["letterbox"] == 0
    assert pixel_scores(np.full((3, HEIGHT, WIDTH, 3), 16, np.uint8), fps=8)["letterbox"] == 1


def test_a_logo_in_a_corner_is_found_and_the_scene_is_not():
    assert pixel_scores(marked(panned()), fps=8)["corner_mark"] > 0.05
    assert pixel_scores(marked(zoomed()), fps=8)["corner_mark"] > 0.05
    assert pixel_scores(panned(), fps=8)["corner_mark"] < 0.02
    assert pixel_scores(zoomed(), fps=8)["corner_mark"] < 0.02


def test_where_the_corners_stay_as_they_are_nobody_can_tell_a_logo_from_the_scene():
    assert pixel_scores(marked(still()), fps=8)["corner_mark"] is None
    assert pixel_scores(walkers(), fps=8)["corner_mark"] in (None, 0.0)


def bits(one, other):
    return (int(perceptual_hash(luma_of(one, SIDE)), 16) ^ int(perceptual_hash(luma_of(other, SIDE)), 16)).bit_count()


def test_hashes_are_equal_for_equal_frames_and_near_for_a_smaller_brighter_copy():
    assert content_hash(panned()) == content_hash(panned())
    assert content_hash(panned()) != content_hash(panned()[:-1])
    copy = np.stack([cv2.resize(frame, (128, 72), interpolation=cv2.INTER_AREA) // 10 * 9 + 20 for frame in panned()])
    assert content_hash(copy) != content_hash(panned())
    assert bits(panned(), copy) < 16
    other = np.stack([view(landscape(seed=9), 200 + 3 * n, HEIGHT) for n in range(8)])
    assert bits(panned(), other) > 80
