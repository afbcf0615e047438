import pytest

from rayramid.pipelines.buckets import Bucket, NoBucketError, choose

SIZES = ["128x128", "192x128", "128x192", "384x256"]


def bucket(width, height, duration_ms=2000, sizes=SIZES, lengths=(1, 9, 25), fps=24.0, max_upscale=1.1):
    return choose(width, height, duration_ms, sizes, lengths, fps, max_upscale)


def test_names_put_height_first_and_count_latents():
    assert Bucket(768, 1280, 241).name == "768x1280x31"
    assert Bucket(128, 128, 1).latents == 1


def test_the_nearest_aspect_wins_and_of_equals_the_largest():
    assert bucket(600, 600) == Bucket(128, 128, 25)
    assert bucket(640, 360) == Bucket(256, 384, 25)
    assert bucket(360, 640) == Bucket(192, 128, 25)


def test_a_clip_is_not_enlarged_beyond_the_limit():
    assert bucket(176, 144) == Bucket(128, 128, 25)
    assert bucket(200, 130) == Bucket(128, 192, 25)
    with pytest.raises(NoBucketError, match="100x90 is too small"):
        bucket(100, 90)


def test_the_longest_length_that_the_clip_fills():
    assert bucket(600, 600, 1042).frames == 25
    assert bucket(600, 600, 1020).frames == 9
    assert bucket(600, 600, None).frames == 1
    with pytest.raises(NoBucketError, match="5 frames at 24 fps are fewer than 9"):
        bucket(600, 600, 208, lengths=(9, 25))
