"""What gets into a version, on made-up results: planning without Ray, media or models."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import unseen

from rayramid.models.errors import UserError
from rayramid.pipelines import curate, manifest
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.publish import pairs


def latents(root, version=None):
    return set(LatentDataset.open(root, version).index["latent_id"].to_pylist())


def encode(**changes):
    return {"encode": {"sizes": ["64x64"], "frames": [9], "fps": 24.0, **changes}}


@pytest.mark.parametrize(
    ("changes", "bucket", "fps"),
    [
        (encode(sizes=["128x64"]), "64x128x2", 24.0),
        (encode(frames=[17]), "64x64x3", 24.0),
        (encode(fps=12.0), "64x64x2", 12.0),
    ],
)
def test_another_size_length_or_rate_is_another_latent_and_the_old_one_is_not_read(tmp_path, changes, bucket, fps):
    old = unseen.spec(tmp_path, 5)
    new = unseen.spec(tmp_path, 5, **changes)
    assert unseen.run(old).version == 1
    assert {job.job: job.pending for job in curate.plan(new)} == {
        "shots": 0,
        "score": 0,
        "caption": 0,
        "embed": 0,
        "encode": 5,
    }
    assert unseen.run(new).version == 2
    assert latents(new.root, 2).isdisjoint(latents(old.root, 1))
    dataset = LatentDataset.open(new.root)
    assert dataset.buckets == {bucket: 5}
    assert set(dataset.index["fps"].to_pylist()) == {fps}
    # Back again: what was encoded before is found again.
    assert curate.plan(old)[-1].pending == 0
    assert (unseen.run(old).version, latents(old.root)) == (3, latents(old.root, 1))


def test_latents_of_another_vae_are_made_anew_and_the_old_ones_are_refused_by_name(tmp_path):
    spec = unseen.spec(tmp_path, 5)
    unseen.run(spec)
    unseen.make_encoder(Path(spec.root), "vae", "two")
    assert curate.plan(spec)[-1].pending == 5
    assert unseen.run(spec).version == 2
    assert latents(spec.root, 2).isdisjoint(latents(spec.root, 1))
    assert LatentDataset.open(spec.root, vae_fingerprint="two").version == 2
    with pytest.raises(UserError, match="version 1 holds latents of VAE one, not of two; encode the clips again"):
        LatentDataset.open(spec.root, 1, vae_fingerprint="two")


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("vae_fingerprint", "foreign", "has vae_fingerprint foreign, not one; it is not used"),
        ("width", 128, "has width 128, not 64; it is not used"),
        ("height", 128, "has height 128, not 64; it is not used"),
        ("frames", 17, "has frames 17, not 9; it is not used"),
        ("fps", 12.0, r"has fps 12\.0, not 24\.0; it is not used"),
        ("latent_dtype", "fp16", "has latent_dtype fp16, not bf16; it is not used"),
        ("fps", None, r"has fps None, not 24\.0; it is not used"),
    ],
)
def test_a_result_that_is_not_what_was_planned_is_refused_by_name(tmp_path, fact, value, message):
    spec = unseen.spec(tmp_path, 5)
    unseen.run(spec)
    url = next((Path(spec.root) / "_receipts/encode").iterdir())
    receipt = json.loads(url.read_text())
    latent_id = sorted(receipt["facts"])[0]
    receipt["facts"][latent_id][fact] = value
    url.write_text(json.dumps(receipt))
    with pytest.raises(UserError, match=f"{receipt['file']}: latent {latent_id} {message}") as caught:
        unseen.run(spec)
    assert "\n" not in str(caught.value)
    assert manifest.latest(spec.root) == 1


def clips(root, version=None):
    return LatentDataset.open(root, version).index.num_rows


def test_a_limited_run_never_shrinks_what_is_read_by_default(tmp_path):
    spec = unseen.spec(tmp_path, 6)
    for limit, version in ((2, 1), (4, 2), (None, 3)):
        summary = unseen.run(spec, limit=limit)
        assert (summary.version, summary.latest, clips(spec.root)) == (version, version, limit or 6)
    fewer = unseen.run(spec, limit=3)
    assert (fewer.version, fewer.new_version, fewer.latest) == (4, True, 3)
    assert fewer.lines()[-2] == (
        "version  v4 (new); v3 stays the latest: it has clips that are not in this part of the corpus"
    )
    assert (clips(spec.root), clips(spec.root, 4)) == (6, 3)
    # The same again is the same version, wherever it came from.
    for limit, version in ((3, 4), (2, 1), (9, 3)):
        summary = unseen.run(spec, limit=limit)
        assert (summary.version, summary.new_version, summary.latest) == (version, False, 3)
    # A whole run says what there is, be it less.
    assert unseen.run(unseen.spec(tmp_path, 5)).latest == 5
    assert clips(spec.root) == 5


def test_trying_other_settings_on_a_few_leaves_the_whole_in_place(tmp_path):
    unseen.run(unseen.spec(tmp_path, 6))
    other = unseen.spec(tmp_path, 6, **encode(fps=12.0))
    tried = unseen.run(other, limit=2)
    assert (tried.version, tried.latest, clips(other.root, 2)) == (2, 1, 2)
    assert unseen.run(other).latest == 3
    assert LatentDataset.open(other.root).manifest["fps"] == 12.0


def test_a_run_that_leaves_clips_undone_does_not_shrink_it_either(tmp_path):
    unseen.run(unseen.spec(tmp_path, 6))
    templated = unseen.spec(tmp_path, 6, caption={"template": "a video of {name}"})
    lines = [json.loads(line) for line in (tmp_path / "6.jsonl").read_text().splitlines()]
    (tmp_path / "6.jsonl").write_text(
        "".join(
            json.dumps({**line, "caption": None if n < 2 else line["caption"]}) + "\n" for n, line in enumerate(lines)
        )
    )
    partly = unseen.run(templated, only="score")
    assert (partly.kept, partly.pending, partly.version, partly.latest) == (4, 2, 2, 1)


def test_a_clip_lists_its_short_caption_where_it_has_one():
    first, second = pa.chunked_array([["a", "b", "c"]]), pa.chunked_array([["x", None, "z"]])
    assert pairs(first, second).to_pylist() == [["a", "x"], ["b"], ["c", "z"]]
    none = pa.chunked_array([pa.nulls(3, pa.string())])
    assert pairs(first, none).to_pylist() == [["a"], ["b"], ["c"]]
