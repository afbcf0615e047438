"""Frames are checked against the numbers that made them, in many containers and codecs, by both decoders."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_files import corners, make_video, number_of, numbered
from numpy.typing import NDArray

from rayramid.models.media.decoders import decord_reader, pyav_frames
from rayramid.models.media.errors import DecodeError
from rayramid.models.media.read import Video, frame_times, probe, read_frames, select

X265 = "log-level=none"
KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": {"g": "12", "bf": "2"}},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:scenecut=0"}},
    "open_gop_hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": f"{X265}:open-gop=1:keyint=10:min-keyint=10:scenecut=0"},
    },
    "ten_bit.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": X265}},
    "odd_444.mp4": {"pix_fmt": "yuv444p", "size": (67, 97)},
    "av1.mkv": {"codec": "libsvtav1"},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "2M"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "h264.ts": {"options": {"bf": "2", "g": "10"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "no_times.avi": {"options": {"bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "late_start.mkv": {"times": range(10, 40)},
    "bare.h264": {},
}


def numbers(path: Path, *arguments: Any, **options: Any) -> list[int]:
    return [number_of(frame) for window in read_frames(path, *arguments, **options) for frame in window]


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_and_every_range_is_the_one_that_was_made(name: str, tmp_path: Path) -> None:
    video = Video(make_video(tmp_path / name, **KINDS[name]))
    height, width = KINDS[name].get("size", (64, 96))
    assert (video.probe.height, video.probe.width, video.probe.frames) == (height, width, 30)
    assert video.probe.fps == 25
    assert video.probe.duration_ms == 1200
    assert video.times_ms.tolist() == [40.0 * i for i in range(30)]
    frames = np.concatenate(list(video.frames(window=7)))
    assert frames.shape == (30, height, width, 3)
    assert [number_of(frame) for frame in frames] == list(range(30))
    assert corners(frames[0]) == ["red", "green", "blue", "grey"]
    for first, last in [(13, 17), (9, 11), (29, 30), (19, 23), (0, 2), (11, 13)]:
        part = np.concatenate(list(video.frames(first * 40, last * 40)))
        assert np.array_equal(part, frames[first:last])
        by_pyav = [number_of(frame) for frame in pyav_frames(video.track, list(range(first, last)))]
        assert by_pyav == list(range(first, last))


@pytest.mark.parametrize(
    ("name", "exact"), [("h264.mp4", True), ("h264.ts", False), ("open_gop.mp4", False), ("open_gop_hevc.mp4", False)]
)
def test_decord_reads_only_where_its_seeks_are_exact(name: str, exact: bool, tmp_path: Path) -> None:
    pytest.importorskip("decord")
    # In the others decord gives neighbours of the frames asked for, without an error.
    assert (decord_reader(Video(make_video(tmp_path / name, **KINDS[name])).track) is not None) == exact


@pytest.mark.parametrize(
    "options", [{"g": "12", "bf": "3"}, {"g": "250", "bf": "0"}, {"bf": "16", "b-pyramid": "none"}]
)
def test_ranges_in_any_order_are_the_same_as_a_whole_read(options: dict[str, str], tmp_path: Path) -> None:
    video = Video(make_video(tmp_path / "a.mp4", range(120), options=options))
    frames = np.concatenate(list(video.frames()))
    draw = np.random.default_rng(0)
    for _ in range(25):
        first = int(draw.integers(0, 119))
        last = int(draw.integers(first + 1, 121))
        assert np.array_equal(np.concatenate(list(video.frames(first * 40, last * 40))), frames[first:last])


@pytest.mark.parametrize(
    ("rotation", "shown"),
    [
        (90, ["green", "grey", "red", "blue"]),
        (180, ["grey", "blue", "green", "red"]),
        (-90, ["blue", "red", "grey", "green"]),
    ],
)
def test_rotation_is_applied_by_both_decoders(rotation: int, shown: list[str], tmp_path: Path) -> None:
    video = Video(make_video(tmp_path / "a.mp4", rotation=rotation))
    height, width = (96, 64) if rotation != 180 else (64, 96)
    assert (video.probe.height, video.probe.width) == (height, width)
    frames = np.concatenate(list(video.frames()))
    assert frames.shape == (30, height, width, 3)
    assert corners(frames[3]) == shown
    assert corners(next(pyav_frames(video.track, [3]))) == shown


def test_a_frame_belongs_to_a_range_if_it_starts_in_it(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4")
    assert numbers(path, 40, 120) == [1, 2]
    assert numbers(path, 40.1, 120.1) == [2, 3]
    assert numbers(path, 1120, None) == [28, 29]
    assert numbers(path, 1120, 99_000) == [28, 29]
    with pytest.raises(DecodeError, match="empty range") as caught:
        numbers(path, 1200, 1300)
    assert caught.value.reason == "empty range"


def test_floored_cut_times_split_a_video_without_loss_or_overlap(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", fps=30)  # Matroska rounds times to milliseconds
    cut = int(frame_times(path)[11])
    assert numbers(path, 0, cut) + numbers(path, cut, None) == list(range(30))
    assert numbers(path, cut, None)[0] == 11


def test_variable_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    # Shown at 0, 40, 80, 200, 240, 400, 440, 480, 800 ms.
    path = make_video(tmp_path / "a.mp4", times=[0, 1, 2, 5, 6, 10, 11, 12, 20])
    assert frame_times(path).tolist() == [0, 40, 80, 200, 240, 400, 440, 480, 800]
    # At 10 fps: 0, 100, 200, 300, …, 800 ms; 600 is nearer to 480, 700 to 800.
    assert numbers(path, 0, 840, fps=10) == [0, 2, 3, 4, 5, 7, 7, 8]
    assert numbers(path, 200, 481, fps=10) == [3, 4, 5]


def test_sampling_by_hand() -> None:
    times = np.array([0, 40_000, 80_000, 120_000])
    assert select(times, 160_000, 0, None, None).tolist() == [0, 1, 2, 3]
    assert select(times, 160_000, 0, None, 25).tolist() == [0, 1, 2, 3]
    assert select(times, 160_000, 0, None, 12.5).tolist() == [0, 2]
    assert select(times, 160_000, 0, None, 50).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert select(times, 160_000, 40, 120, 25).tolist() == [1, 2]
    assert select(times, 160_000, 0, 40, 100).tolist() == [0, 0, 0, 0]
    # An end that was rounded up by a millisecond adds no frame.
    assert select(times, 161_000, 0, 161, 25).tolist() == [0, 1, 2, 3]
    assert select(times, 160_000, 160, None, 25).tolist() == []


def test_ntsc_and_film_rates_become_24_fps_without_drift() -> None:
    for rate in (24000 / 1001, 30000 / 1001, 50, 59.94):
        times = np.rint(np.arange(600) * 1e6 / rate).astype(np.int64)
        chosen = select(times, int(600e6 / rate), 0, None, 24)
        assert len(chosen) == round(600 / rate * 24)
        late = times[chosen] - np.arange(len(chosen)) * 1e6 / 24
        assert np.abs(late).max() <= 0.5e6 / rate + 1


def test_frames_are_resized_while_they_are_read(tmp_path: Path) -> None:
    windows = list(read_frames(make_video(tmp_path / "a.mp4"), window=20, size=(32, 32)))
    assert [window.shape for window in windows] == [(20, 32, 32, 3), (10, 32, 32, 3)]
    assert corners(windows[0][0]) == ["red", "green", "blue", "grey"]


def test_the_preroll_of_an_edit_list_is_not_shown(tmp_path: Path) -> None:
    # Frames 0 to 4 lie before zero: the MP4 keeps them for decoding and hides them by its edit list.
    path = make_video(
        tmp_path / "a.mp4",
        times=range(-5, 25),
        options={"bf": "0", "g": "10"},
        container_options={"avoid_negative_ts": "disabled"},
    )
    video = Video(path)
    assert (video.probe.frames, video.probe.missing_frames) == (25, 0)
    assert video.times_ms[:3].tolist() == [0, 40, 80]
    assert numbers(path) == list(range(5, 30))
    assert numbers(path, 0, 80) == [5, 6]
    assert numbers(path, 400, 480) == [15, 16]


def truncated(path: Path, part: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_truncated_file_gives_its_whole_frames_and_no_others(name: str, tmp_path: Path) -> None:
    path = make_video(
        tmp_path / name, container_options={"movflags": "faststart"} if name == "a.mp4" else {}, options={"g": "1"}
    )
    truncated(path, 0.6)
    found = probe(path)
    assert 5 < found.frames < 28
    assert numbers(path) == list(range(found.frames))
    if name == "a.mp4":
        assert found.missing_frames == 30 - found.frames


def damaged(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + len(data) // 2
    data[start : start + 400] = bytes(400)
    path.write_bytes(data)
    return path


def test_damaged_frames_are_never_replaced_by_their_neighbours(tmp_path: Path) -> None:
    path = damaged(make_video(tmp_path / "a.mp4", container_options={"movflags": "faststart"}, options={"g": "5"}))
    with pytest.raises(DecodeError) as caught:
        assert numbers(path) == list(range(30))
    assert caught.value.reason in ("corrupt", "missing frame")


NOT_VIDEOS: dict[str, tuple[bytes, str]] = {
    "text.mp4": (b"This is not a video, whatever its name says.\n" * 50, "not a video"),
    "empty.mp4": (b"", "not a video"),
    "zeros.mp4": (bytes(5000), "not a video"),
    "playlist.mp4": (b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.ts\n#EXT-X-ENDLIST\n", "not a video"),
    "list.mp4": (b"ffconcat version 1.0\nfile other.ts\n", "not a video"),
}


@pytest.mark.parametrize("name", NOT_VIDEOS)
def test_what_is_no_video_is_named_as_such(name: str, tmp_path: Path) -> None:
    make_video(tmp_path / "other.ts")
    path = tmp_path / name
    path.write_bytes(NOT_VIDEOS[name][0])
    with pytest.raises(DecodeError) as caught:
        probe(path)
    assert caught.value.reason == NOT_VIDEOS[name][1]
    assert "\n" not in str(caught.value)


def test_sound_without_pictures_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        samples.rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    with pytest.raises(DecodeError, match="no video stream"):
        probe(path)
    with pytest.raises(DecodeError, match="no such file"):
        probe(tmp_path / "absent.mp4")


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [("a.png", "png", "rgb24"), ("a.jpg", "mjpeg", "yuvj420p")])
def test_an_image_is_a_video_of_one_frame(name: str, codec: str, pix_fmt: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, [0], codec, pix_fmt, container_options={"update": "1"})
    assert probe(path).frames == 1
    [window] = read_frames(path)
    assert window.shape == (1, 64, 96, 3)
    assert np.abs(window[0].astype(int) - numbered(0)).mean() < 8


def test_a_frame_survives_the_way_through_a_lossless_file_in_its_colours(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", pix_fmt="yuv444p", options={"crf": "0"})
    frames: NDArray[np.uint8] = np.concatenate(list(read_frames(path)))
    made = np.stack([numbered(i) for i in range(30)])
    assert np.abs(frames.astype(int) - made).max() <= 2


def test_nothing_of_media_imports_torch() -> None:
    code = (
        "import sys, rayramid.models.media.child, rayramid.models.media.read, rayramid.models.media.segments,"
        "rayramid.models.media.preview, rayramid.models.sprites.clip; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_test_is_left_a_real_time_process_by_an_encoder() -> None:
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
