"""Lists in the form that each corpus publishes, in small."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayramid.models.errors import UserError
from rayramid.pipelines import sources
from rayramid.pipelines.manifests import READERS, Entry, moment_ms, read_manifest
from rayramid.pipelines.spec import Source


def written(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


PUBLISHED = {
    "plain": (
        {"video": "a.mp4", "caption": "a cat", "licence": "MIT", "start_s": 1.5, "end_s": "3"},
        [Entry("a.mp4", "a cat", "MIT", 1500, 3000)],
    ),
    "webvid": (
        {
            "videoid": "1066674784",
            "contentUrl": "https://ak.picdn.net/1.mp4",
            "duration": "PT00H00M10S",
            "page_dir": "006001_006050",
            "name": "Rear view of a man",
        },
        [Entry("006001_006050/1066674784.mp4", "Rear view of a man")],
    ),
    "openvid-1m": (
        {
            "video": "--5bZzDQi1Q_13_0to127.mp4",
            "caption": "A woman at a desk, talking",
            "aesthetic score": 4.9,
            "motion score": 2.1,
            "temporal consistency score": 0.98,
            "camera motion": "static",
            "frame": 127,
            "fps": 30.0,
            "seconds": 4.2,
        },
        [Entry("--5bZzDQi1Q_13_0to127.mp4", "A woman at a desk, talking")],
    ),
    "panda-70m": (
        {
            "videoID": "6iXXDvxMBnc",
            "url": "https://www.youtube.com/watch?v=6iXXDvxMBnc",
            "timestamp": "[['0:00:00.000', '0:00:03.737'], ['0:00:05.005', '0:01:07.5']]",
            "caption": "['A man\\'s hands.', 'A dog, running.']",
            "matching_score": "[0.43, 0.5]",
        },
        [
            Entry("6iXXDvxMBnc.mp4", "A man's hands.", None, 0, 3737),
            Entry("6iXXDvxMBnc.mp4", "A dog, running.", None, 5005, 67500),
        ],
    ),
    "koala-36m": (
        {
            "videoID": "XnlRkE1SfyQ_12",
            "url": "https://www.youtube.com/watch?v=XnlRkE1SfyQ",
            "timestamp": "['0:00:20.000', '0:00:24.500']",
            "caption": "The video shows a lake.",
            "clarity_score": 0.9,
            "aesthetic_score": 4.8,
            "motion_score": 3.9,
            "video_training_suitability_score": 4.31,
        },
        [Entry("XnlRkE1SfyQ.mp4", "The video shows a lake.", None, 20000, 24500)],
    ),
    "open-sora": (
        {"path": "clips/a.mp4", "text": "a lake", "num_frames": 51, "height": 480, "width": 720, "aes": 5.1},
        [Entry("clips/a.mp4", "a lake")],
    ),
    "finetrainers": ({"file_name": "videos/0.mp4", "caption": "a boat"}, [Entry("videos/0.mp4", "a boat")]),
    "pyramid-flow": (
        {"video": "/data/a.mp4", "text": "a hill", "latent": "/data/a.pt", "text_fea": "/data/a-text.pt"},
        [Entry("/data/a.mp4", "a hill")],
    ),
}


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_each_corpus_is_read_as_it_is_published(tmp_path, kind, suffix):
    row, entries = PUBLISHED[kind]
    assert list(read_manifest(written(tmp_path / f"list.{suffix}", [row]), kind)) == entries


def test_cells_of_hours_of_video_are_no_trouble(tmp_path):
    row, (_, entry) = PUBLISHED["panda-70m"]
    times = str([["0:00:05.005", "0:01:07.5"]] * 9000)
    captions = str(["A dog, running."] * 9000)
    assert len(times) > 131072
    manifest = written(tmp_path / "list.csv", [{**row, "timestamp": times, "caption": captions}])
    assert list(read_manifest(manifest, "panda-70m")) == [entry] * 9000


def test_videos_of_webvid_that_lie_nowhere_are_left_out(tmp_path):
    row, entries = PUBLISHED["webvid"]
    for suffix, nowhere in (("csv", ""), ("parquet", None)):
        manifest = written(tmp_path / f"list.{suffix}", [row, {**row, "page_dir": nowhere}])
        assert list(read_manifest(manifest, "webvid")) == entries


def test_every_format_that_a_spec_may_name_has_a_reader():
    assert set(READERS) == set(PUBLISHED) == set(Source.model_fields["format"].annotation.__args__)


def test_finetrainers_two_text_files(tmp_path):
    (tmp_path / "videos.txt").write_text("videos/0.mp4\nvideos/1.mp4\n")
    (tmp_path / "prompt.txt").write_text("a boat\na train\n")
    found = list(read_manifest(str(tmp_path / "videos.txt"), "finetrainers"))
    assert found == [Entry("videos/0.mp4", "a boat"), Entry("videos/1.mp4", "a train")]
    (tmp_path / "prompt.txt").write_text("a boat\n")
    with pytest.raises(UserError, match=r"2 videos, but .*prompt\.txt has 1 lines"):
        list(read_manifest(str(tmp_path / "videos.txt"), "finetrainers"))
    (tmp_path / "prompt.txt").unlink()
    with pytest.raises(UserError, match=r"no captions beside it; they are expected in captions\.txt or caption"):
        list(read_manifest(str(tmp_path / "videos.txt"), "finetrainers"))
    (tmp_path / "captions.txt").write_text("a boat\na train\n")
    assert list(read_manifest(str(tmp_path / "videos.txt"), "finetrainers")) == found


def test_ranges_of_one_video_are_sources_of_their_own_in_one_split(tmp_path):
    row, _ = PUBLISHED["panda-70m"]
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/6iXXDvxMBnc.mp4").write_bytes(b"x")
    manifest = written(tmp_path / "list.csv", [row])
    wanted = Source(manifest=manifest, format="panda-70m", videos=str(tmp_path / "videos"))
    listed = sources.list_sources([wanted], 0.5).to_pylist()
    assert {row["uri"] for row in listed} == {str(tmp_path / "videos/6iXXDvxMBnc.mp4")}
    assert sorted((row["from_ms"], row["to_ms"], row["caption"]) for row in listed) == [
        (0, 3737, "A man's hands."),
        (5005, 67500, "A dog, running."),
    ]
    assert len({row["source_id"] for row in listed}) == 2
    assert len({row["split"] for row in listed}) == 1


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("0:01:02.250", 62250), ("1:02", 62000), ("3.5", 3500), ("2:00:00", 7200000)]
)
def test_moments(text, milliseconds):
    assert moment_ms(text) == milliseconds


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("webvid", {"video": "a.mp4"}, "row 1 has no 'page_dir'; is it a list of webvid"),
        ("panda-70m", {"videoID": "a", "timestamp": "[['0:00', 'soon']]", "caption": "['x']"}, "'soon' is no time"),
        ("panda-70m", {"videoID": "a", "timestamp": "[]", "caption": "['x']"}, "0 times but 1 captions"),
        ("koala-36m", {"videoID": "a", "timestamp": "[", "caption": "x"}, "row 1: "),
    ],
)
def test_a_list_of_another_form_is_one_line(tmp_path, kind, row, message):
    with pytest.raises(UserError, match=message) as caught:
        list(read_manifest(written(tmp_path / "list.jsonl", [row]), kind))
    assert "\n" not in str(caught.value)
