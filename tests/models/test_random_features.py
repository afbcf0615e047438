"""The network of random weights is the same everywhere, and sees pictures and motion."""

import numpy as np
import pytest
import torch

from rayramid.models.frechet import Gaussian, frechet_distance, kernel_distance
from rayramid.models.random_features import FEATURES, RandomFeatures, random_features


def drifting_squares(seed, count=24):
    """Videos [count, 8, 32, 32, 3] of a grey square of 8 pixels that moves to the right, one pixel a frame."""
    draw = np.random.default_rng(seed)
    videos = np.zeros((count, 8, 32, 32, 3), np.uint8)
    for video in videos:
        top, left, grey = draw.integers(0, 24), draw.integers(0, 16), draw.integers(100, 256)
        for time, frame in enumerate(video):
            frame[top : top + 8, left + time : left + time + 8] = grey
    return videos


def features_of(videos):
    return RandomFeatures()(torch.from_numpy(np.ascontiguousarray(videos))).numpy()


def test_the_weights_never_change():
    first = RandomFeatures().layers[0].weight
    assert first.flatten()[:3].tolist() == pytest.approx([-0.25467321, -0.16994962, 0.32379106], rel=1e-6)
    video = np.arange(5 * 8 * 8 * 3, dtype=np.uint8).reshape(1, 5, 8, 8, 3)
    features = random_features(video)
    assert features.shape == (1, FEATURES)
    assert features[0, [0, 16, 48]].tolist() == pytest.approx([10.085217, 5.835568, 9.151556], rel=1e-4)


def test_videos_together_have_the_features_of_each_alone():
    videos = drifting_squares(0, 3)
    assert random_features(videos) == pytest.approx(features_of(videos), rel=1e-4, abs=1e-4)


def test_one_frame_is_a_video():
    assert np.isfinite(random_features(drifting_squares(0, 1)[:, :1])).all()


@pytest.fixture(scope="module")
def samples():
    """Features of two samples of the same."""
    return features_of(drifting_squares(0)), features_of(drifting_squares(1))


@pytest.mark.parametrize(
    "change",
    [
        lambda videos: np.repeat(videos[:, 4:5], 8, axis=1),
        lambda videos: videos[:, [0, 4, 1, 5, 2, 6, 3, 7]],
        lambda videos: videos + np.random.default_rng(0).integers(0, 24, videos.shape, np.uint8) * (videos < 230),
        lambda videos: videos // 2,
    ],
    ids=["frozen", "out of order", "noisy", "dark"],
)
def test_what_differs_is_farther_than_another_sample_of_the_same(samples, change):
    reference, other = samples
    changed = features_of(change(drifting_squares(1)))

    def distances(features):
        return frechet_distance(Gaussian.of(reference), Gaussian.of(features)), kernel_distance(reference, features)

    assert all(far > near for far, near in zip(distances(changed), distances(other), strict=True))
