import json

import pytest

from rayramid.models.errors import UserError
from rayramid.pipelines.sources import list_sources
from rayramid.pipelines.spec import Source, Sprites


def names(files):
    return [file.name for file in files]


def test_a_folder_gives_its_videos_and_images_only(tmp_path):
    for name in ("b.mp4", "deep/a.MOV", "still.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    files = list_sources([Source(folder=str(tmp_path), licence="CC0")], "root", 0.0)
    assert names(files) == ["b.mp4", "deep/a.MOV", "still.png"]
    assert [file.kind for file in files] == ["video", "video", "image"]
    assert {file.licence for file in files} == {"CC0"}


def test_identity_follows_the_content_and_split_the_name(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"one")
    source = Source(folder=str(tmp_path))
    before = list_sources([source], "root", 0.5)[0]
    assert list_sources([source], "root", 0.5)[0] == before
    file.write_bytes(b"other")
    after = list_sources([source], "root", 0.5)[0]
    assert after.source_id != before.source_id
    assert after.split == before.split


def test_a_manifest_brings_captions_and_paths_beside_it(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    lines = [{"video": "a.mp4", "caption": "a cat", "licence": "MIT"}, {"video": "gone.mp4"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "list.csv").write_text("video,caption\na.mp4,a dog\n")
    first, missing = list_sources([Source(manifest=str(tmp_path / "list.jsonl"), licence="CC0")], "root", 0.0)
    assert (first.uri, first.caption, first.licence) == (str(tmp_path / "a.mp4"), "a cat", "MIT")
    assert (missing.name, missing.licence) == ("gone.mp4", "CC0")
    assert list_sources([Source(manifest=str(tmp_path / "list.csv"))], "root", 0.0)[0].caption == "a dog"


def test_a_file_named_twice_is_one_source(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    source = Source(folder=str(tmp_path))
    assert len(list_sources([source, source], "root", 0.0)) == 1


def test_sprites_are_rendered_once(tmp_path):
    source = Source(sprites=Sprites(clips=2, width=64, height=64, frames=9))
    files = list_sources([source], str(tmp_path), 0.0)
    assert len(files) == 2
    assert all(file.caption for file in files)
    assert list_sources([source], str(tmp_path), 0.0) == files


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"folder": "{tmp}/empty"}, "no video or image here"),
        ({"manifest": "{tmp}/none.jsonl"}, "no such file"),
        ({"manifest": "{tmp}/broken.jsonl"}, "not a manifest"),
        ({"manifest": "{tmp}/nameless.jsonl"}, "row 1 has no 'video'"),
        ({"package": "no-such-package"}, "not installed"),
    ],
)
def test_sources_that_cannot_be_are_named_in_one_line(tmp_path, source, message):
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "nameless.jsonl").write_text('{"caption": "x"}')
    source = {key: value.replace("{tmp}", str(tmp_path)) for key, value in source.items()}
    with pytest.raises(UserError, match=message) as caught:
        list_sources([Source(**source)], str(tmp_path), 0.0)
    assert "\n" not in str(caught.value)
