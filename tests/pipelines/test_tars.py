import io
import json
import tarfile

import numpy as np
import pytest

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import sources
from rayramid.pipelines.frames import SourceFrames
from rayramid.pipelines.sources import VIDEOS
from rayramid.pipelines.spec import Source
from rayramid.pipelines.tars import member_of, samples


def tar_of(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def test_videos_in_tars_are_listed_with_captions_and_decoded_where_they_lie(root, two_shots):
    video = two_shots.read_bytes()
    files = {
        "000/a.mp4": video,
        "000/a.txt": b"a bright box\n",
        "000/b.json": json.dumps({"caption": "a dark box", "width": 96}).encode(),
        "000/b.mp4": video,
        "000/c.mp4": video,
        "000/d.cls": b"3",
    }
    storage.write_atomic(storage.join(root, "shards", "000.tar"), tar_of(files))
    listed = sources.list_sources([Source(tars=storage.join(root, "shards"), licence="CC0")], 0.0).to_pylist()
    assert [(row["name"], row["caption"]) for row in listed] == [
        ("000/000/a.mp4", "a bright box"),
        ("000/000/b.mp4", "a dark box"),
        ("000/000/c.mp4", None),
    ]
    assert len({row["source_id"] for row in listed}) == 3
    frames = SourceFrames(deadline_s=30)
    row = {"uri": listed[1]["uri"], "kind": listed[1]["kind"], "start_ms": 0, "end_ms": 1000}
    found = np.concatenate(list(frames.read(row, (64, 96))))
    assert np.array_equal(found, np.concatenate(list(frames.read({**row, "uri": str(two_shots)}, (64, 96)))))


def test_a_member_is_found_again_by_its_uri(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar_of({"a,b#c.mp4": b"video"}))
    ((member, caption),) = samples(str(tmp_path / "x.tar"), VIDEOS)
    assert caption is None
    assert member_of(member.uri) == member
    assert member.read() == b"video"
    assert member_of("/videos/a.mp4") is None


def test_what_is_no_tar_is_one_line(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"not a tar at all" * 100)
    with pytest.raises(UserError, match="not a tar"):
        list(samples(str(tmp_path / "x.tar"), VIDEOS))
