"""What is written is read back: MP4, segments that depend on their unit alone, small pictures."""

import io
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import corners, number_of, numbered
from numpy.typing import NDArray
from PIL import Image

from rayramid.models.errors import UserError
from rayramid.models.media.preview import sprite_sheet, webp_animation, webp_thumbnail
from rayramid.models.media.read import Video, probe, read_frames
from rayramid.models.media.resize import resize_crop
from rayramid.models.media.segments import SegmentReader, SegmentWriter, remux
from rayramid.models.media.write import exact_rate, write_mp4


def clip(first: int, last: int, height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    return np.stack([numbered(number, height, width) for number in range(first, last)])


ENCODE = """
import sys, numpy as np
from rayramid.models.media.write import write_mp4
t, y, x = np.meshgrid(np.arange(16), np.arange(64), np.arange(96), indexing="ij")
waves = [(x * (1 + c) + y * (2 - c) + 3 * t * (c - 1)) / 20 for c in range(3)]
write_mp4(sys.argv[1], np.stack([127.5 + 120 * np.sin(wave) for wave in waves], axis=-1).astype(np.uint8), 8.0)
"""


def test_the_same_frames_give_the_same_bytes_whatever_the_memory_held_before(tmp_path: Path) -> None:
    written = []
    for junk in ("0", "85", "255"):
        path = tmp_path / f"{junk}.mp4"
        # glibc fills what it gives out with these bytes.
        environment = {**os.environ, "MALLOC_PERTURB_": junk}
        subprocess.run([sys.executable, "-c", ENCODE, str(path)], check=True, env=environment)
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]


def test_an_mp4_gives_back_its_frames_rate_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.mp4"
    write_mp4(path, clip(0, 20), 24, metadata={"comment": "seed 7"})
    video = Video(path)
    assert (video.probe.width, video.probe.height, video.probe.fps, video.probe.frames) == (96, 64, 24, 20)
    frames = np.concatenate(list(video.frames()))
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert corners(frames[0]) == ["red", "green", "blue", "grey"]
    with av.open(str(path)) as container:
        assert container.metadata["comment"] == "seed 7"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "plays before it is wholly loaded"


def test_flat_colours_come_back_within_a_rounding_of_8_bit_video(tmp_path: Path) -> None:
    for colour in [(200, 30, 40), (20, 180, 60), (30, 40, 220), (128, 128, 128), (250, 250, 10)]:
        write_mp4(tmp_path / "a.mp4", np.full((3, 32, 32, 3), colour, np.uint8), 24, crf=1)
        [frames] = read_frames(tmp_path / "a.mp4")
        assert np.abs(frames.astype(int) - colour).max() <= 3


def test_odd_sides_lose_their_last_row_and_column(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", clip(0, 3, 65, 97), 24)
    assert (probe(tmp_path / "a.mp4").height, probe(tmp_path / "a.mp4").width) == (64, 96)
    with pytest.raises(UserError, match="at least 2x2"):
        write_mp4(tmp_path / "b.mp4", np.zeros((1, 1, 8, 3), np.uint8), 24)
    with pytest.raises(UserError, match="at least one frame"):
        write_mp4(tmp_path / "c.mp4", [], 24)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_place_that_takes_no_video_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="is a file, a folder is needed"):
        write_mp4(tmp_path / "file" / "a.mp4", clip(0, 2), 24)


def test_rounded_rates_mean_exact_ones() -> None:
    assert [str(exact_rate(fps)) for fps in (24, 23.976, 29.97, 59.94, 25, 12.5)] == [
        "24", "24000/1001", "30000/1001", "60000/1001", "25", "25/2",
    ]  # fmt: skip


UNITS = [(0, 1), (1, 9), (9, 17), (17, 25)]


def stream_of(writer: SegmentWriter) -> bytes:
    return writer.init_segment() + b"".join(
        writer.media_segment(clip(first, last), first, sequence)
        for sequence, (first, last) in enumerate(UNITS, start=1)
    )


@pytest.mark.parametrize("fps", [24, 23.976])
def test_segments_in_a_row_are_a_video_with_the_right_frames_and_times(fps: float, tmp_path: Path) -> None:
    path = tmp_path / "stream.mp4"
    path.write_bytes(stream_of(SegmentWriter(96, 64, fps)))
    for file in (path, tmp_path / "whole.mp4"):
        if file != path:
            remux(path, file)
            assert file.read_bytes().index(b"moov") < file.read_bytes().index(b"mdat")
        video = Video(file)
        assert (video.probe.width, video.probe.height, video.probe.frames) == (96, 64, 25)
        assert np.allclose(video.times_ms, np.arange(25) * 1000 / float(exact_rate(fps)), atol=0.01)
        assert [number_of(frame) for window in video.frames() for frame in window] == list(range(25))
        assert video.track.keys.tolist() == [0, 1, 9, 17], "an IDR frame at the start of every unit"


def test_every_prefix_of_a_stream_plays(tmp_path: Path) -> None:
    writer = SegmentWriter(96, 64, 24)
    data = writer.init_segment()
    for sequence, (first, last) in enumerate(UNITS, start=1):
        data += writer.media_segment(clip(first, last), first, sequence)
        (tmp_path / "a.mp4").write_bytes(data)
        assert probe(tmp_path / "a.mp4").frames == last


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    segment = SegmentWriter(96, 64, 24).media_segment(clip(9, 17), 9, 3)
    writer = SegmentWriter(96, 64, 24)
    writer.media_segment(clip(100, 108), 1, 2)
    assert writer.media_segment(clip(9, 17), 9, 3) == segment
    np.save(tmp_path / "frames.npy", clip(9, 17))
    code = (
        "import sys, numpy as np; from rayramid.models.media.segments import SegmentWriter;"
        "sys.stdout.buffer.write(SegmentWriter(96, 64, 24).media_segment(np.load(sys.argv[1]), 9, 3))"
    )
    other = subprocess.run([sys.executable, "-c", code, tmp_path / "frames.npy"], capture_output=True, check=True)
    assert other.stdout == segment


def test_the_init_segment_serves_every_unit() -> None:
    from rayramid.models.media.segments import _head

    writer = SegmentWriter(96, 64, 24)
    init = writer.init_segment()
    for first, last in UNITS:
        assert _head(writer._encoded(clip(first, last), first, 5)) == init
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), np.uint8)
    assert _head(writer._encoded(noise, 7, 5)) == init
    assert init[4:8] == b"ftyp"
    assert writer.codecs.startswith('video/mp4; codecs="avc1.64')


def test_a_thumbnail_keeps_the_aspect_and_is_never_enlarged() -> None:
    image = Image.open(io.BytesIO(webp_thumbnail(numbered(3, 128, 192), width=96)))
    assert (image.format, image.size) == ("WEBP", (96, 64))
    assert corners(np.asarray(image.convert("RGB"))) == ["red", "green", "blue", "grey"]
    assert Image.open(io.BytesIO(webp_thumbnail(numbered(3), width=500))).size == (96, 64)


def test_an_animation_has_every_frame_at_its_rate() -> None:
    image = Image.open(io.BytesIO(webp_animation(clip(0, 6), fps=8)))
    assert (image.n_frames, image.size) == (6, (96, 64))
    image.seek(5)
    image.load()
    assert image.info["duration"] == 125
    assert number_of(np.asarray(image.convert("RGB"))) == 5


def test_a_sheet_holds_the_frames_row_by_row() -> None:
    image = Image.open(io.BytesIO(sprite_sheet(clip(0, 5), columns=3, width=96)))
    assert image.size == (3 * 96, 2 * 64)
    tile = np.asarray(image.convert("RGB"))[64:, 96:192]
    assert number_of(tile) == 4


def test_resizing_covers_the_size_and_cuts_both_sides_equally() -> None:
    # Columns 0..7 with value 10 × column; the middle four are kept.
    frame = np.broadcast_to((np.arange(8) * 10).astype(np.uint8)[None, :, None], (4, 8, 3))[None]
    assert resize_crop(frame, 4, 4)[0, 0, :, 0].tolist() == [20, 30, 40, 50]
    assert resize_crop(frame, 4, 8) is frame
    assert resize_crop(frame, 2, 2).shape == (1, 2, 2, 3)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (58, 480), (352, 56)])
def test_sizes_whose_scale_is_no_exact_fraction_are_scaled_too(height: int, width: int) -> None:
    scale = 448 / 640 if height == 480 else 256 / max(height, width)
    size = round(height * scale), round(width * scale)
    assert resize_crop(np.full((1, height, width, 3), 7, np.uint8), *size).shape == (1, *size, 3)


def test_fine_stripes_become_grey_not_moire() -> None:
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    small = resize_crop(stripes, 16, 16)
    assert np.abs(small[0, 2:-2, 2:-2].astype(int) - 127).max() <= 3


def test_a_stream_is_decoded_as_it_arrives_in_pieces_of_any_size() -> None:
    rng = np.random.default_rng(0)
    writer = SegmentWriter(32, 16, 8.0)
    units = [rng.integers(0, 256, (frames, 16, 32, 3), np.uint8) for frames in (1, 8, 3)]
    parts = [writer.init_segment()]
    for number, unit in enumerate(units):
        parts.append(writer.media_segment(unit, sum(map(len, units[:number])), number + 1))
    data = b"".join(parts)
    for size in (1, 100, len(data)):
        reader = SegmentReader()
        arrived = [
            (start, frames) for start in range(0, len(data), size) for frames in reader.feed(data[start : start + size])
        ]
        assert [len(frames) for _, frames in arrived] == [1, 8, 3]
        if size == 1:
            # A unit is there with its segment's last byte.
            assert [start + 1 for start, _ in arrived] == list(np.cumsum([len(part) for part in parts])[1:])
        assert arrived[0][1].shape == (1, 16, 32, 3)
