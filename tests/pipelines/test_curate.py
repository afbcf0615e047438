"""What needs no Ray: looking at what there is to do and what was done."""

import pytest

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import curate, encoders, manifest, upkeep
from rayramid.pipelines.plan import Item, cut, read_plans, read_shard, write_plans
from rayramid.pipelines.receipts import Failure, Receipt, begin, commit
from rayramid.pipelines.sources import list_sources
from rayramid.pipelines.spec import DataSpec
from rayramid.pipelines.stages import shots_work


def spec(root, folder):
    return DataSpec(root=str(root), sources=[{"folder": str(folder)}])


def receipt(shard, file, failures=()):
    numbers = {"sha256": "", "bytes": 0, "rows": 0, "attempt": 1, "seconds": 0.0, "facts": {}}
    ok = shard.size - len(failures)
    return Receipt(job=shard.job, shard_id=shard.shard_id, file=file, ok=ok, failures=tuple(failures), **numbers)


def test_a_dry_run_counts_what_is_to_be_done_and_leaves_no_trace(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).write_bytes(name.encode())
    root = tmp_path / "data"
    pending = curate.plan(spec(root, tmp_path / "videos"))
    assert [(job.job, job.inputs, job.pending) for job in pending] == [
        ("shots", 2, 2),
        ("score", 0, 0),
        ("caption", 0, 0),
        ("embed", 1, 1),
        ("encode", 0, 0),
    ]
    assert curate.plan(spec(root, tmp_path / "videos"), limit=1)[0].inputs == 1
    assert not root.exists()


def test_only_takes_a_jobs_name(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match="no job 'shot'; the jobs are shots, score, caption, embed, encode"):
        curate.run(spec(tmp_path / "data", tmp_path), only="shot")


@pytest.mark.parametrize("look_after", [upkeep.status, upkeep.retry, upkeep.gc])
def test_a_root_without_plans_says_how_to_start(tmp_path, look_after):
    with pytest.raises(UserError, match="nothing was planned here; start with `rayramid data run SPEC`"):
        look_after(str(tmp_path))


def test_a_dry_run_counts_what_is_to_be_tried_again(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    wanted = spec(tmp_path / "data", tmp_path)
    root = wanted.root
    work = shots_work(wanted, list_sources(wanted.sources, 0.0))
    write_plans(root, "shots", cut(work.items, work.largest, 1), generation=0)
    (shard,) = read_plans(root, "shots").shards
    (item_id,) = work.items["item_id"].to_pylist()
    commit(root, receipt(shard, "clips/none.parquet", [Failure(item_id, "a.mp4", "DecodeError", "no", 1)]))
    shots, *_ = curate.plan(wanted)
    assert (shots.inputs, shots.done, shots.pending) == (1, 1, 0)
    upkeep.retry(root)
    shots, *_ = curate.plan(wanted)
    assert (shots.inputs, shots.done, shots.pending) == (1, 0, 1)


def test_a_retry_plans_the_failed_items_alone_and_only_once(tmp_path):
    root = str(tmp_path)
    write_plans(root, "caption", [[Item("good", {"n": 1}), Item("bad", {"n": 2})]], generation=0)
    (shard,) = read_plans(root, "caption").shards
    commit(
        root,
        receipt(
            shard, "captions/none.parquet", [Failure("bad", "", "ValueError", "no", 1), Failure("good", "", "E", "", 1)]
        ),
    )
    assert upkeep.retry(root) == 2
    again = [shard for shard in read_plans(root, "caption").shards if shard.generation == 1]
    assert sorted(read_shard("caption", shard.plan, shard.row_group)[1][0].row["n"] for shard in again) == [1, 2]
    assert upkeep.retry(root) == 0
    status = {ledger.job: ledger for ledger in upkeep.status(root)}
    assert (status["caption"].inputs, status["caption"].failed) == (2, 2)


def test_gc_deletes_notes_of_committed_shards_and_encoders_that_no_version_uses(tmp_path):
    root = str(tmp_path)
    write_plans(root, "caption", [[Item("a", {})], [Item("b", {})]], generation=0)
    committed, under_way = read_plans(root, "caption").shards
    for shard in (committed, under_way):
        begin(root, "caption", shard.shard_id, "run")
    commit(root, receipt(committed, f"captions/{committed.shard_id}-1.parquet"))
    for name in ("mine", "orphan", "old"):
        storage.write_atomic(f"{root}/models/vae/{name}/config.json", b"{}")
    assert upkeep.gc(root) == 1  # no VAE is recorded yet, so any of them may be
    assert [url.split("/")[-2] for url in storage.list_files(f"{root}/_attempts")] == [under_way.shard_id]
    encoders._record_once(root, "vae", encoders.Encoder("models/vae/mine", "mine"))
    facts = {"vae": {"url": "models/vae/old"}, "text": {"url": "s3://b/text"}}
    manifest.publish(root, facts, manifest.INDEX_SCHEMA.empty_table(), manifest.TEXT_INDEX_SCHEMA.empty_table())
    assert upkeep.gc(root) == 1
    assert sorted(path.name for path in (tmp_path / "models/vae").iterdir() if any(path.iterdir())) == ["mine", "old"]


def test_gc_deletes_only_files_that_another_attempts_receipt_outdated(tmp_path):
    root = str(tmp_path)
    write_plans(root, "caption", [[Item("a", {})], [Item("b", {})]], generation=0)
    committed, under_way = read_plans(root, "caption").shards
    commit(root, receipt(committed, f"captions/{committed.shard_id}-2.parquet"))
    folder = tmp_path / "captions"
    folder.mkdir()
    for shard, attempt in ((committed, 1), (committed, 2), (under_way, 1)):
        (folder / f"{shard.shard_id}-{attempt}.parquet").write_bytes(b"x")
    assert upkeep.gc(root) == 1
    assert {file.name for file in folder.iterdir()} == {
        f"{committed.shard_id}-2.parquet",
        f"{under_way.shard_id}-1.parquet",
    }
