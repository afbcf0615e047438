"""A corpus of sprites, scored, judged, encoded: what is said of its clips."""

import json
import shutil

import pytest
from corpus import spec

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import curate, manifest, revise
from rayramid.pipelines.explain import explain

SPRITES = {"sources": [{"sprites": {"clips": 4, "width": 64, "height": 64, "frames": 9}}]}


@pytest.fixture(scope="module")
def corpus(in_process, tmp_path_factory):
    """Four clips, of which the brightest is rejected."""
    root = str(tmp_path_factory.mktemp("explain") / "data")
    wanted = {**SPRITES, "keep": {"brightness": {"max": "quantile:0.8"}, "blur": {"min": 1}}}
    curate.run(spec(root, **wanted))
    return root


def rows(root):
    return manifest.read_index(root, manifest.read(root)).to_pylist()


def test_a_kept_clip_with_its_source_scores_bounds_latent_and_versions(corpus):
    clip = rows(corpus)[0]
    found = explain(corpus, clip["clip_id"][:12])
    assert (found.clip["clip_id"], found.clip["uri"]) == (clip["clip_id"], clip["uri"])
    assert (found.clip["start_ms"], found.clip["width"], found.clip["split"]) == (0, 64, clip["split"])
    assert (found.fate, found.reason, found.bucket, found.versions) == ("kept", None, "64x64x2", (1,))
    assert found.scores["brightness"]["value"] <= found.scores["brightness"]["max"]
    assert found.latent == f"{clip['file']} bytes {clip['offset']}+{clip['length']}"
    assert found.caption
    text = "\n".join(found.lines())
    assert "fate       kept" in text
    assert "versions   v1" in text


def test_a_rejected_clip_says_which_threshold_and_no_version_holds_it(corpus):
    curation = curate.survey(spec(corpus, **SPRITES, keep={"brightness": {"max": "quantile:0.8"}}))
    held = {row["clip_id"] for row in rows(corpus)}
    (out,) = set(curation.clips["clip_id"].to_pylist()) - held
    found = explain(corpus, out)
    assert (found.fate, found.versions, found.latent) == ("rejected", (), None)
    assert found.reason.startswith("brightness ")
    assert ">" in found.reason


def test_a_removed_clip_says_when_and_why_and_the_versions_that_still_hold_it(corpus, tmp_path):
    root = str(shutil.copytree(corpus, tmp_path / "data"))
    clip_id = rows(root)[0]["clip_id"]
    revise.remove(root, clips=[clip_id], reason="asked by its author")
    found = explain(root, clip_id)
    assert (found.fate, found.versions) == ("removed", (1,))
    assert found.reason.endswith("asked by its author")


def test_models_that_were_trained_on_it_are_found_by_their_cards(corpus, tmp_path):
    for name, versions in {"mine": {corpus: 1}, "later": {corpus: 2}, "other": {"/elsewhere": 1}}.items():
        card = json.dumps({"dataset_version": versions}).encode()
        storage.write_atomic(str(tmp_path / "models" / name / "rayramid.json"), card)
    found = explain(corpus, rows(corpus)[0]["clip_id"], models=str(tmp_path / "models"))
    assert found.models == (str(tmp_path / "models/mine"),)


def test_an_id_that_is_none_or_of_several_is_one_line(corpus):
    with pytest.raises(UserError, match="no such clip"):
        explain(corpus, "nothing")
    with pytest.raises(UserError, match="clips begin so"):
        explain(corpus, "")


def test_the_report_shows_clips_on_either_side_of_each_threshold(corpus):
    page = storage.read_bytes(f"{corpus}/report/index.html").decode()
    assert "Near the thresholds" in page
    assert "brightness ≤" in page
    assert "3 just inside, 1 just beyond" in page
    # 4 clips beside brightness, 4 beside blur, 3 kept, 1 rejected.
    assert page.count("data:image/webp;base64,") == 12
    assert "http://" not in page
    assert "https://" not in page
