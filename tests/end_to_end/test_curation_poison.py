"""Files that make trouble, through all jobs: each fails with its reason, or the VAE gets the frames that made it."""

import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from corpus import spec
from media_files import make_video, number_of

from rayramid.pipelines import curate, plan
from rayramid.pipelines.encode import clip_frames
from rayramid.pipelines.frames import SourceFrames

SIZE = (64, 64)
FRAMES = 25
FASTSTART = {"movflags": "faststart"}


def cut_off(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def lying(path: Path) -> Path:
    """The header says ten times the length."""
    data = bytearray(path.read_bytes())
    for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        at = data.index(box) + offset
        data[at : at + 4] = struct.pack(">I", 10 * struct.unpack(">I", data[at : at + 4])[0])
    path.write_bytes(data)
    return path


def endless(path: Path) -> Path:
    """Followed by a terabyte of zeros (a hole): the demuxer looks for the next frame longer than anyone waits."""
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        samples.rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    return path


FAILS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.mp4": (lambda path: path.write_bytes(b""), "DecodeError: not a video"),
    "text.mp4": (lambda path: path.write_text("this is not a video"), "DecodeError: not a video"),
    "sound.mp4": (sound, "DecodeError: not a video"),
    "headless.mp4": (lambda path: cut_off(make_video(path, size=SIZE), 0.9), "DecodeError: not a video"),
    "hangs.mkv": (lambda path: endless(make_video(path, size=SIZE)), "DecodeError: deadline"),
}

X265 = "log-level=none"
# How each is made, and the numbers of the 25 frames at 25 fps that it shows from its start.
IS_RIGHT: dict[str, tuple[Callable[[Path], object], list[int]]] = {
    "plain.mp4": (lambda path: make_video(path, size=SIZE), list(range(25))),
    "truncated.mp4": (
        lambda path: cut_off(
            make_video(path, range(60), size=SIZE, options={"g": "1"}, container_options=FASTSTART), 0.7
        ),
        list(range(25)),
    ),
    "lying.mp4": (lambda path: lying(make_video(path, size=SIZE)), list(range(25))),
    "odd.mp4": (lambda path: make_video(path, size=(67, 67), pix_fmt="yuv444p"), list(range(25))),
    "rotated.mp4": (lambda path: make_video(path, size=SIZE, rotation=180), list(range(25))),
    "edit_list.mp4": (
        lambda path: make_video(
            path,
            range(-5, 30),
            size=SIZE,
            options={"bf": "0", "g": "10"},
            container_options={"avoid_negative_ts": "disabled"},
        ),
        list(range(5, 30)),
    ),
    "ten_bit.mp4": (
        lambda path: make_video(path, size=SIZE, codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": X265}),
        list(range(25)),
    ),
    "open_gop.mp4": (
        lambda path: make_video(
            path,
            size=SIZE,
            options={"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:scenecut=0"},
        ),
        list(range(25)),
    ),
    "av1.mkv": (lambda path: make_video(path, size=SIZE, codec="libsvtav1"), list(range(25))),
    # Shown at ticks 0 1 2 5 6 10 11 12 20 …; of two equally near ones the earlier.
    "variable.mp4": (
        lambda path: make_video(path, [0, 1, 2, 5, 6, 10, 11, 12, 20, 21, 22, 23, 24], size=SIZE),
        [0, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 7, 7, 7, 7, 7, 8, 8, 8, 8, 9, 10, 11, 12],
    ),
}


@pytest.mark.slow
def test_each_file_fails_with_its_reason_or_its_own_frames_are_encoded(ray_cluster, tmp_path):
    folder, root = tmp_path / "videos", tmp_path / "data"
    folder.mkdir()
    for name, (make, _) in {**FAILS, **IS_RIGHT}.items():
        make(folder / name)
    workers = {job: {"count": 2, "cpus": 0.5} for job in ("shots", "score", "encode")}
    run = spec(
        root,
        folder,
        encode={"sizes": ["64x64"], "frames": [FRAMES], "fps": 25},
        decode={"deadline_s": 8},
        workers=workers,
    )
    summary = curate.run(run)
    failures = map(json.loads, (root / "failed/shots.jsonl").read_text().splitlines())
    assert {Path(failure["input"]).name: failure["error"] for failure in failures} == {
        name: reason for name, (_, reason) in FAILS.items()
    }
    assert (summary.kept, summary.rejected, summary.failed) == (len(IS_RIGHT), 0, len(FAILS))

    frames = SourceFrames(deadline_s=30)
    for item in plan.planned_items(str(root), "encode"):
        name = Path(item.row["uri"]).name
        shown = itertools.chain.from_iterable(clip_frames(frames, item.row))
        upright = (np.rot90(frame, 2) if name == "rotated.mp4" else frame for frame in shown)
        assert [number_of(frame) for frame in upright] == IS_RIGHT[name][1], name
