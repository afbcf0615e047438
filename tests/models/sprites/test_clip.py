"""Addresses of clips: what is read from them is what a file with these frames would give."""

import numpy as np
import pytest

from rayramid.models.errors import UserError
from rayramid.models.media.read import read_frames
from rayramid.models.media.write import write_mp4
from rayramid.models.sprites.clip import SpritesClip
from rayramid.models.sprites.render import render

CLIP = SpritesClip(3, 7, 64, 48, 25, 24.0)


def test_an_address_names_its_clip():
    assert CLIP.uri == "sprites://3/7?size=64x48&frames=25&fps=24"
    assert SpritesClip.at(CLIP.uri) == CLIP
    half = SpritesClip(0, 0, 64, 64, 9, 12.5)
    assert SpritesClip.at(half.uri) == half
    with pytest.raises(UserError, match="not an address"):
        SpritesClip.at("sprites://3")


def test_a_whole_clip_is_its_scenes_frames():
    assert np.array_equal(np.concatenate(list(CLIP.read())), render(CLIP.scene, 25))
    assert len(CLIP.times_ms) == CLIP.probe.frames == 25
    assert CLIP.probe.duration_ms == 1042


def test_long_clips_come_in_windows():
    clip = SpritesClip(0, 0, 32, 32, 150, 24.0)
    windows = list(clip.read())
    assert [len(window) for window in windows] == [64, 64, 22]
    assert np.array_equal(np.concatenate(windows), render(clip.scene, 150))


@pytest.mark.parametrize(("start_ms", "end_ms", "fps"), [(0, None, 8), (250, 800, None), (0, 1042, 30), (41, 700, 12)])
def test_ranges_and_rates_are_those_of_a_file(tmp_path, start_ms, end_ms, fps):
    path = tmp_path / "clip.mp4"
    write_mp4(path, render(CLIP.scene, 25), CLIP.fps, crf=0)
    expected = np.concatenate(list(read_frames(path, start_ms, end_ms, fps, size=(32, 32))))
    drawn = np.concatenate(list(CLIP.read(start_ms, end_ms, fps, size=(32, 32))))
    assert drawn.shape == expected.shape
    # The file keeps colour at half the resolution.
    assert np.abs(drawn.astype(int) - expected).mean() < 3
