"""Versions from versions: removal and merging, on indexes written by hand."""

import pyarrow as pa
import pytest

from rayramid.models.errors import UserError
from rayramid.pipelines import manifest, revise
from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.plan import Item, read_plans, read_shard, write_plans
from rayramid.pipelines.removals import read_removals
from rayramid.pipelines.worker import work

EMPTY = caption_id("")
FACTS = {"code": {}, "spec": {}, "text": {"fingerprint": "t"}, "fates": {"kept": 9, "failed": 1}}


class Cut:
    """Every source becomes two clips."""

    columns_out = pa.schema([("clip_id", pa.string()), ("source_id", pa.string())])
    batch = 1
    facts: tuple[str, ...] = ()

    def rows_per_group(self, row):
        return 64

    def __call__(self, rows):
        return [[{"clip_id": f"{row['source_id']}.{n}", "source_id": row["source_id"]} for n in (1, 2)] for row in rows]


def cut(root, *sources):
    write_plans(root, "shots", [[Item(f"shots-{s}", {"source_id": s, "uri": f"/videos/{s}.mp4"})] for s in sources], 0)
    for shard in read_plans(root, "shots").shards:
        work(root, "run", Cut(), *read_shard("shots", shard.plan, shard.row_group))


def publish(root, *clips, vae="v", fps=24.0, caption="a cat"):
    index = [
        {
            "latent_id": f"latent-{clip}",
            "clip_id": clip,
            "uri": f"/videos/{clip.split('.')[0]}.mp4",
            "split": "train",
            "bucket": "64x64x2",
            "file": f"latents/{clip}.parquet",
            "t": 2,
            "h": 8,
            "w": 8,
            "fps": fps,
            "caption_ids": [caption_id(caption)],
            "text_lens": [3],
            "first_mean": float("ab".index(clip[0]) + int(clip[-1])),
            "first_std": 1.0,
        }
        for clip in clips
    ]
    texts = [
        {"caption_id": caption_id(text), "caption": text, "file": "text/a.parquet"} for text in sorted(["", caption])
    ]
    return manifest.publish(
        root,
        {**FACTS, "vae": {"fingerprint": vae}},
        pa.Table.from_pylist(index, schema=manifest.INDEX_SCHEMA),
        pa.Table.from_pylist(texts, schema=manifest.TEXT_INDEX_SCHEMA),
    )


def newest(root):
    found = manifest.read(root)
    return found, manifest.read_index(root, found), manifest.read_text_index(root, found)


def clips_of(root):
    return newest(root)[1]["clip_id"].to_pylist()


def test_statistics_follow_the_law_of_total_variance():
    rows = [
        {"first_mean": 1.0, "first_std": 1.0, "later_mean": None, "later_std": None},
        {"first_mean": -1.0, "first_std": 1.0, "later_mean": 0.5, "later_std": 2.0},
    ]
    found = manifest.statistics(pa.Table.from_pylist(rows, schema=manifest.INDEX_SCHEMA))
    assert (found["first_mean"], found["first_std"]) == (0.0, pytest.approx(2**0.5))
    assert (found["later_mean"], found["later_std"]) == (0.5, 2.0)
    assert manifest.statistics(manifest.INDEX_SCHEMA.empty_table())["later_mean"] is None


@pytest.mark.parametrize("name", ["a", "/videos/a.mp4"])
def test_a_source_is_taken_out_with_all_its_clips(root, name):
    cut(root, "a", "b")
    publish(root, "a.1", "a.2", "b.1", "b.2")
    assert revise.remove(root, sources=[name], reason="asked to") == (2, True)
    found, index, texts = newest(root)
    assert index["clip_id"].to_pylist() == ["b.1", "b.2"]
    assert texts["caption"].to_pylist() == sorted(["", "a cat"])
    assert (found["parent"], found["clips"], found["fates"]["kept"]) == (1, 2, 2)
    assert found["files"] == ["latents/b.1.parquet", "latents/b.2.parquet", "text/a.parquet"]
    assert found["statistics"]["first_mean"] == 2.5
    (removal,) = found["removals"]
    assert (removal["sources"], removal["reason"]) == (["/videos/a.mp4"], "asked to")
    assert manifest.read_index(root, manifest.read(root, 1)).num_rows == 4
    # A run that leaves the source out comes to the same version.
    assert publish(root, "b.1", "b.2") == (2, False)


def test_a_clip_is_taken_out_alone_and_what_nobody_uses_goes_with_it(tmp_path):
    root = str(tmp_path)
    cut(root, "a")
    publish(root, "a.1", "a.2")
    revise.remove(root, clips=["a.2"])
    assert clips_of(root) == ["a.1"]
    assert revise.remove(root, clips=["a.2"]) == (2, False)
    assert revise.remove(root, clips=["a.1"]) == (3, True)
    found, index, texts = newest(root)
    assert (index.num_rows, found["clips"], found["fps"]) == (0, 0, None)
    assert texts["caption"].to_pylist() == [""]


def test_an_unknown_name_removes_nothing(tmp_path):
    root = str(tmp_path)
    cut(root, "a")
    publish(root, "a.1")
    with pytest.raises(UserError, match="no source or clip 'b' was ever planned here"):
        revise.remove(root, sources=["a", "b"])
    assert read_removals(root).all == ()
    assert clips_of(root) == ["a.1"]


def test_merged_versions_hold_the_clips_of_all_and_each_once(root):
    publish(root, "a.1", "a.2")
    publish(root, "a.2", "b.1", caption="a dog")
    assert revise.merge(root, [1, 2]) == (3, True)
    found, index, texts = newest(root)
    assert found["merged"] == [1, 2]
    assert index["clip_id"].to_pylist() == ["a.1", "a.2", "b.1"]
    cat, dog = caption_id("a cat"), caption_id("a dog")
    assert index["caption_ids"].to_pylist() == [[cat], [cat, dog], [dog]]
    assert set(texts["caption_id"].to_pylist()) == {EMPTY, cat, dog}
    assert revise.merge(root, [1, 2]) == (3, False)


def test_merging_brings_nothing_back_that_was_removed(tmp_path):
    root = str(tmp_path)
    cut(root, "a", "b")
    publish(root, "a.1", "b.1")
    revise.remove(root, sources=["a"])
    revise.merge(root, [1, 2])
    assert clips_of(root) == ["b.1"]


def test_merging_takes_two_versions_that_are_there(tmp_path):
    root = str(tmp_path)
    with pytest.raises(UserError, match="no dataset here"):
        revise.merge(root, [1, 2])
    publish(root, "a.1")
    with pytest.raises(UserError, match="merging takes two or more versions"):
        revise.merge(root, [1, 1])
    with pytest.raises(UserError, match="no version 2; the latest is 1"):
        revise.merge(root, [1, 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vae": "w"}, "different VAE can't be merged: version 1 has v, version 2 has w"),
        ({"fps": 25.0}, "different fps can't be merged: version 1 has 24.0, version 2 has 25.0"),
    ],
)
def test_versions_that_do_not_fit_are_not_merged(tmp_path, changes, message):
    root = str(tmp_path)
    publish(root, "a.1")
    publish(root, "b.1", **changes)
    with pytest.raises(UserError, match=message):
        revise.merge(root, [1, 2])
