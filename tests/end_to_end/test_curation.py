"""The data path on a real Ray: poison, growth, new thresholds, and processes killed on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from rayramid.models.sprites import write_sprites
from rayramid.pipelines import curate
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.spec import DataSpec


def spec(root, folder, **changes):
    plain = {
        "root": str(root),
        "sources": [{"folder": str(folder), "licence": "CC0"}],
        "shots": {"min_s": 0.2},
        "caption": {"template": "sprites that move, {name}"},
        "encode": {"sizes": ["64x64"], "frames": [9]},
        "split": {"val": 0.5},
    }
    return DataSpec.model_validate({**plain, **changes})


def videos(folder, clips, seed=0):
    write_sprites(folder, clips, seed=seed, width=64, height=64, frames=9)
    return folder


def contents(root):
    """What a version holds, whatever order or files it was written in."""
    dataset = LatentDataset.open(str(root))
    rows = dataset.index.select(["latent_id", "clip_id", "split", "bucket"]).to_pylist()
    return sorted(tuple(row.values()) for row in rows)


class Steps:
    """Counts the shards that a run really does."""

    def __init__(self):
        self.done = {}

    def __call__(self, job, done, total):
        self.done[job] = done


def test_poison_growth_and_thresholds(ray_cluster, tmp_path):
    folder = videos(tmp_path / "videos", 4)
    (folder / "poison.mp4").write_text("this is not a video")
    root = tmp_path / "data"

    summary = curate.run(spec(root, folder))
    assert [(ledger.job, ledger.inputs, ledger.ok, ledger.failed) for ledger in summary.ledgers] == [
        ("shots", 5, 4, 1),
        ("score", 4, 4, 0),
        ("caption", 4, 4, 0),
        ("embed", 5, 5, 0),
        ("encode", 4, 4, 0),
    ]
    assert (summary.version, summary.kept, summary.rejected, summary.failed) == (1, 4, 0, 1)
    (failure,) = map(json.loads, (root / "failed/shots.jsonl").read_text().splitlines())
    assert failure["error"] == "DecodeError: not a video"
    assert "poison.mp4" in failure["message"]
    report = (root / "report/index.html").read_text()
    assert "DecodeError: not a video" in report
    assert report.count("data:image/webp;base64,") == 4

    dataset = LatentDataset.open(str(root), vae_fingerprint=LatentDataset.open(str(root)).vae_fingerprint)
    assert dataset.latent(0).shape == (16, 2, 8, 8)
    tokens_LD, pooled_P = dataset.text(dataset.index["caption_ids"][0].as_py()[0])
    assert tokens_LD.shape == (dataset.index["text_lens"][0].as_py()[0], 64)
    assert pooled_P.shape == (64,)

    unchanged = Steps()
    assert curate.run(spec(root, folder), on_progress=unchanged).new_version is False
    assert unchanged.done == {}

    stricter = Steps()
    summary = curate.run(spec(root, folder, keep={"duration_s": {"min": 9}}), on_progress=stricter)
    assert (summary.version, summary.kept, summary.rejected) == (None, 0, 4)
    assert stricter.done == {}

    first = contents(root)
    write_sprites(folder / "more", 1, seed=7, width=64, height=64, frames=9)
    grown = Steps()
    summary = curate.run(spec(root, folder), on_progress=grown)
    assert (summary.version, summary.kept) == (2, 5)
    assert grown.done == {"shots": 1, "score": 1, "caption": 1, "embed": 1, "encode": 1}
    assert set(first) < set(contents(root))
    assert curate.gc(str(root)) == 0

    assert curate.retry(str(root)) == 1
    assert curate.retry(str(root)) == 0
    summary = curate.run(spec(root, folder))
    assert (summary.version, summary.failed) == (2, 1)


def workers_of_this_cluster():
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::MapWorker") or "ShardWorker" in process.name()
    ]


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(ray_cluster, tmp_path):
    folder = videos(tmp_path / "videos", 12)
    calm = curate.run(spec(tmp_path / "calm", folder))
    killed = []
    finished = threading.Event()

    def kill_one_worker_of_each_job():
        while not finished.wait(0.2):
            for process in workers_of_this_cluster():
                if job[0] not in killed:
                    killed.append(job[0])
                    process.kill()

    job = [""]

    def follow(name, done, total):
        job[0] = name if 0 < done < total else job[0]

    killer = threading.Thread(target=kill_one_worker_of_each_job)
    killer.start()
    try:
        hunted = curate.run(spec(tmp_path / "hunted", folder), on_progress=follow)
    finally:
        finished.set()
        killer.join()
    assert killed
    assert hunted.ledgers == calm.ledgers
    ids = [row[1] for row in contents(tmp_path / "hunted")]
    assert ids == [row[1] for row in contents(tmp_path / "calm")]
    assert len(ids) == len(set(ids)) == 12


DRIVER = """
import sys
import ray
from rayramid.pipelines import curate
from rayramid.pipelines.spec import DataSpec
ray.init(address=sys.argv[1])
curate.run(DataSpec.model_validate_json(sys.argv[2]), on_progress=lambda job, done, total: print(job, done, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["shots 1", "score 2", "embed 0", "encode 1"])
def test_a_killed_driver_goes_on_where_it_was(ray_cluster, tmp_path, moment):
    folder = videos(tmp_path / "videos", 8)
    root = tmp_path / "data"
    command = [sys.executable, "-c", DRIVER, ray_cluster, spec(root, folder).model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if line.strip() == moment:
                break
        os.killpg(driver.pid, signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in Path(root, "_receipts").rglob("*.json")}
    # The dead driver's workers may finish what they hold; the next run must not mind.
    summary = curate.run(spec(root, folder))
    assert (summary.kept, summary.failed, summary.version) == (8, 0, 1)
    ids = [row[1] for row in contents(root)]
    assert len(ids) == len(set(ids)) == 8
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
