"""The data path on a real Ray: poison, growth, new thresholds, opt-out, an input that kills, sums that don't hold."""

import functools
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpus import contents, spec, videos
from ray import cloudpickle
from typer.testing import CliRunner

from rayramid.models import storage
from rayramid.models.sprites.clip import SpritesClip
from rayramid.models.vae.io import load_vae
from rayramid.models.vae.streaming import decode_video
from rayramid.pipelines import curate, plan, receipts, revise, upkeep
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.execute import execute
from rayramid.pipelines.outcomes import outcomes_of
from rayramid.pipelines.plan import Item
from rayramid.pipelines.spec import Workers
from rayramid.platform.cli import app


class Steps:
    """Counts the shards that a run really does."""

    def __init__(self):
        self.done = {}

    def __call__(self, job, done, total):
        self.done[job] = done


def books(summary):
    return [(ledger.job, ledger.inputs, ledger.ok, ledger.failed) for ledger in summary.ledgers]


def test_from_files_to_a_version_and_nothing_twice(ray_cluster, tmp_path):
    known = videos(tmp_path / "sprites", 3, seed=5) / "manifest.jsonl"
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison/poison.mp4").write_text("this is not a video")
    root = tmp_path / "data"
    sources = [known, tmp_path / "poison"]

    summary = curate.run(spec(root, *sources))
    assert books(summary) == [
        ("shots", 4, 3, 1),
        ("score", 3, 3, 0),
        ("caption", 3, 3, 0),
        ("embed", 4, 4, 0),
        ("encode", 3, 3, 0),
    ]
    assert (summary.version, summary.kept, summary.rejected, summary.failed) == (1, 3, 0, 1)
    (failure,) = map(json.loads, (root / "failed/shots.jsonl").read_text().splitlines())
    assert (failure["error"], Path(failure["input"]).name) == ("DecodeError: not a video", "poison.mp4")
    report = (root / "report/index.html").read_text()
    assert "DecodeError: not a video" in report
    assert report.count("data:image/webp;base64,") == 3

    # What was encoded under a name is what that name was rendered as, caption and all.
    dataset = LatentDataset.open(str(root))
    vae = load_vae(dataset.vae_url)
    clips = [SpritesClip(5, number, 64, 64, 9, 24.0) for number in range(3)]
    rendered = [np.concatenate(list(clip.read())) for clip in clips]
    captions = {row["caption_id"]: row["caption"] for row in dataset.text_index.to_pylist()}
    for row, clip in enumerate(dataset.index.to_pylist()):
        decoded = np.concatenate(list(decode_video(vae, dataset.latent(row)))).astype(float)
        errors = [np.abs(decoded - frames).mean() for frames in rendered]
        assert captions[clip["caption_ids"][0]] == clips[int(np.argmin(errors))].caption
        tokens_LD, pooled_P = dataset.text(clip["caption_ids"][0])
        assert (tokens_LD.shape, pooled_P.shape) == ((clip["text_lens"][0], 64), (64,))

    steps = Steps()
    assert curate.run(spec(root, *sources), on_progress=steps).new_version is False
    stricter = curate.run(spec(root, *sources, keep={"duration_s": {"min": 9}}), on_progress=steps)
    assert (stricter.version, stricter.kept, stricter.rejected) == (None, 0, 3)
    assert steps.done == {}
    videos(tmp_path / "more", 1, seed=7)
    pending = curate.plan(spec(root, *sources, tmp_path / "more"))
    assert [(job.inputs, job.pending) for job in pending] == [(5, 1), (3, 0), (3, 0), (4, 0), (3, 0)]


@pytest.mark.slow
def test_growing_shrinking_retrying_and_merging(ray_cluster, tmp_path):
    folder, root = videos(tmp_path / "videos", 4), tmp_path / "data"
    (folder / "poison.mp4").write_text("this is not a video")
    assert curate.run(spec(root, folder), limit=2).pending == 0
    first = contents(root)
    assert len(first) in (1, 2)  # the poison may be among the first two

    only = Steps()
    assert curate.run(spec(root, folder), only="shots", on_progress=only).version == 1
    assert set(only.done) == {"shots"}
    curate.run(spec(root, folder))
    assert set(first) < set(contents(root))
    assert len(contents(root)) == 4

    more = videos(tmp_path / "more", 1, seed=7)
    grown = Steps()
    summary = curate.run(spec(root, folder, more), on_progress=grown)
    assert (summary.version, summary.kept) == (3, 5)
    assert grown.done == {"shots": 1, "score": 1, "caption": 1, "embed": 1, "encode": 1}
    whole = contents(root)

    taken_out = whole[0]
    assert revise.remove(str(root), sources=[taken_out[1]], reason="asked to") == (4, True)
    assert contents(root) == whole[1:]
    after = curate.run(spec(root, folder, more))
    assert (after.version, after.new_version, after.kept) == (4, False, 4)
    assert revise.merge(str(root), [1, 4])[1] is (taken_out not in first and False)
    assert contents(root) == whole[1:]

    assert upkeep.retry(str(root)) == 1
    assert upkeep.retry(str(root)) == 0
    summary = curate.run(spec(root, folder, more))
    assert (summary.version, summary.failed) == (4, 1)
    assert upkeep.gc(str(root)) > 0
    assert not list(storage.list_files(str(root / "_attempts")))
    assert curate.run(spec(root, folder, more)).version == 4


class Killing:
    """A job that one input ends as a crash of native code would: no exception, the process is gone."""

    columns_out = pa.schema([("number", pa.int64())])
    batch = 4
    facts: tuple[str, ...] = ()

    def rows_per_group(self, row):
        return 64

    def __call__(self, rows):
        if any(row["number"] == 5 for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return [[{"number": row["number"]}] for row in rows]


@pytest.mark.slow
def test_an_input_that_kills_its_worker_is_set_apart_and_the_others_are_done(ray_cluster, tmp_path):
    root = str(tmp_path)
    plan.write_plans(
        root, "score", [[Item(f"i{n}", {"number": n}) for n in range(s, s + 4)] for s in (0, 4, 8)], generation=0
    )
    shards = plan.read_plans(root, "score").shards
    # The workers can't import this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    done = []
    execute(root, "run", functools.partial(Killing), shards, Workers(count=2, cpus=0.5), lambda: done.append(1))
    found = outcomes_of(root, "score", plan.read_plans(root, "score"))
    assert len(done) == 3
    assert (found.ledger().ok, found.ledger().failed) == (11, 1)
    (failure,) = found.failures
    # Once with its batch, twice alone: then it is known, and the fourth attempt goes around it.
    assert (failure.item_id, failure.error, failure.attempt) == ("i5", "Quarantined", 3)


def test_sums_that_do_not_hold_are_exit_code_3(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    root, specification = tmp_path / "data", tmp_path / "data.yaml"
    specification.write_text(f"kind: data\nroot: {root}\nsources: [{{folder: {tmp_path}}}]\n")
    plan.write_plans(str(root), "shots", [[Item("a", {}), Item("b", {})]], generation=0)
    (shard,) = plan.read_plans(str(root), "shots").shards
    lost = receipts.Receipt("shots", shard.shard_id, "clips/a.parquet", "", 0, 1, 1, 1, 0.0, (), {})
    receipts.commit(str(root), lost)
    for command in (["data", "status", str(root)], ["data", "retry", str(root)]):
        outcome = CliRunner().invoke(app, command)
        assert outcome.exit_code == 3
        assert "2 items, but 1 ok + 0 failed" in outcome.output
