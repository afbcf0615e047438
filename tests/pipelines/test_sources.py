import json
from types import SimpleNamespace

import pytest

from rayramid.models.errors import UserError
from rayramid.models.sprites.clip import SpritesClip
from rayramid.pipelines import sources
from rayramid.pipelines.spec import Source, Sprites


def list_sources(wanted, val_share):
    return [SimpleNamespace(**row) for row in sources.list_sources(wanted, val_share).to_pylist()]


def names(files):
    return [file.name for file in files]


def test_a_folder_gives_its_videos_and_images_only(tmp_path):
    for name in ("b.mp4", "deep/a.MOV", "still.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    files = list_sources([Source(folder=str(tmp_path), licence="CC0")], 0.0)
    assert names(files) == ["b.mp4", "deep/a.MOV", "still.png"]
    assert [file.kind for file in files] == ["video", "video", "image"]
    assert {file.licence for file in files} == {"CC0"}


def test_identity_follows_the_content_and_split_the_name(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"one")
    source = Source(folder=str(tmp_path))
    before = list_sources([source], 0.5)[0]
    assert list_sources([source], 0.5)[0] == before
    file.write_bytes(b"other")
    after = list_sources([source], 0.5)[0]
    assert after.source_id != before.source_id
    assert after.split == before.split


def test_a_manifest_brings_captions_and_paths_beside_it(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    lines = [{"video": "a.mp4", "caption": "a cat", "licence": "MIT"}, {"video": "gone.mp4"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "list.csv").write_text("video,caption\na.mp4,a dog\n")
    first, missing = list_sources([Source(manifest=str(tmp_path / "list.jsonl"), licence="CC0")], 0.0)
    assert (first.uri, first.caption, first.licence) == (str(tmp_path / "a.mp4"), "a cat", "MIT")
    assert (missing.name, missing.licence) == ("gone.mp4", "CC0")
    assert list_sources([Source(manifest=str(tmp_path / "list.csv"))], 0.0)[0].caption == "a dog"


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("*.mp4", ["b.mp4"]),
        ("**/*.mp4", ["b.mp4", "deep/a.mp4", "deep/er/c.mp4"]),
        ("deep/?.mp4", ["a.mp4"]),
        ("d*/**/c.m*", ["deep/er/c.mp4"]),
    ],
)
def test_a_glob_takes_some_of_what_is_below_its_folder(tmp_path, glob, found):
    for name in ("b.mp4", "deep/a.mp4", "deep/er/c.mp4", "deep/er/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(list_sources([Source(folder=f"{tmp_path}/{glob}")], 0.0)) == found


def test_a_file_named_twice_is_one_source(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    source = Source(folder=str(tmp_path))
    assert len(list_sources([source, source], 0.0)) == 1


def test_sprites_are_addresses_with_true_captions_and_no_files():
    both = [Source(sprites=Sprites(clips=3, width=64, height=64, frames=frames)) for frames in (9, 1)]
    files = list_sources(both, 0.5)
    assert names(files)[:2] == ["sprites-000000-0-64x64x1", "sprites-000000-0-64x64x9"], "a limit takes some of each"
    assert [file.kind for file in files] == ["image", "video"] * 3
    for file in files:
        assert file.caption == SpritesClip.at(file.uri).caption
        assert file.licence == "CC0-1.0"
    assert list_sources(both, 0.5) == files


def test_sprites_too_small_to_see_are_one_line():
    with pytest.raises(UserError, match="31x64"):
        list_sources([Source(sprites=Sprites(clips=1, width=31, height=64))], 0.0)


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
        list_sources([Source(**source)], 0.0)
    assert "\n" not in str(caught.value)
