"""Sources and dataset on S3: a real server with a driver killed on the way, and a server that fails for a while."""

import collections
import random

import pytest
from corpus import contents, driver, spec, videos
from s3_servers import Proxy

from rayramid.models import storage
from rayramid.pipelines import upkeep
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.spec import JOBS

WORKERS = {job: {"count": 2, "cpus": 0.5} for job in JOBS}
CLIPS = 6

pytestmark = pytest.mark.slow


def uploaded(url, tmp_path):
    storage.sync_up(videos(tmp_path / "videos", CLIPS), f"{url}/videos")
    return spec(f"{url}/data", f"{url}/videos", workers=WORKERS)


def finished(address, run):
    with driver(address, run) as process:
        return process.communicate()[0].splitlines()[-1]


def check(root):
    assert [(ledger.inputs, ledger.failed) for ledger in upkeep.status(root)] == [
        (CLIPS, 0),
        (CLIPS, 0),
        (CLIPS, 0),
        (CLIPS + 1, 0),
        (CLIPS, 0),
    ]
    clips = [row[0] for row in contents(root)]
    assert len(clips) == len(set(clips)) == CLIPS
    dataset = LatentDataset.open(root)
    assert {dataset.latent(row).shape for row in range(CLIPS)} == {(16, 2, 8, 8)}


def test_a_run_on_seaweedfs_survives_its_driver(ray_cluster, weed, tmp_path):
    run = uploaded(weed, tmp_path)
    with driver(ray_cluster, run) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("score 1"))
        process.kill()
    assert finished(ray_cluster, run) == f"kept {CLIPS} 0"
    check(run.root)


def test_a_server_that_fails_for_a_while_costs_nothing(ray_cluster, s3_server, s3_bucket, tmp_path, monkeypatch):
    run = uploaded(s3_bucket, tmp_path)
    rng, met = random.Random(0), collections.Counter()

    def fault():
        found = (
            rng.choice(["503", "503", "stall", "cut upload", "cut answer", "lose answer"]) if rng.random() < 0.3 else ""
        )
        met[found] += 1
        return found

    proxy = Proxy(s3_server, fault)
    with monkeypatch.context() as disturbed:
        disturbed.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert finished(ray_cluster, run) == f"kept {CLIPS} 0", met
    proxy.close()
    assert all(met[name] for name in ("503", "stall", "lose answer")), met
    check(run.root)
