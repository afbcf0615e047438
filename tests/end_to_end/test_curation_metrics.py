"""What Ray's metrics say of a run, read where Prometheus reads it: at each node's exporter."""

import time
from collections import Counter

import httpx
import pytest
import ray
from corpus import spec, videos
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE_S

from rayramid.pipelines import curate
from rayramid.pipelines.receipts import read_receipts


def exported():
    """What each process of this cluster has counted of the job `shots`: (process, name, kind) -> value."""
    counts = {}
    for node in ray.nodes():
        if node["Alive"]:
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            for family in text_string_to_metric_families(httpx.get(url, timeout=60).text):
                for sample in family.samples:
                    if sample.name.startswith("ray_rayramid_data_") and sample.labels["data_job"] == "shots":
                        name = sample.name.removeprefix("ray_rayramid_data_").removesuffix("_total")
                        kind = sample.labels.get("outcome", "")
                        counts[sample.labels["WorkerId"], name, kind] = sample.value
    return counts


def test_rays_metrics_have_the_numbers_of_the_live_display_and_of_the_ledger(ray_cluster, tmp_path):
    folder = videos(tmp_path / "videos", 3)
    (folder / "poison.mp4").write_text("this is not a video")
    # Workers of other runs have left their counts, and this process, which tells of shards, goes on counting.
    before = exported()
    display = {}
    summary = curate.run(
        spec(tmp_path / "data", folder),
        only="shots",
        on_progress=lambda job, done, total: display.__setitem__(job, {"done": done, "all": total}),
    )
    ledger = summary.ledgers[0]
    told = read_receipts(summary.root, "shots", lambda receipt: (receipt.bytes, receipt.seconds)).values()
    expected = {
        ("committed_rows", "ok"): ledger.ok,
        ("committed_rows", "failed"): ledger.failed,
        ("written_bytes", ""): sum(size for size, _ in told),
        ("worked_seconds", ""): pytest.approx(sum(seconds for _, seconds in told)),
        ("done_shards", ""): display["shots"]["done"],
        ("planned_shards", ""): display["shots"]["all"],
    }
    assert (ledger.ok, ledger.failed) == (3, 1)

    def counted():
        counts = Counter()
        for (process, name, kind), value in exported().items():
            counts[name, kind] += value - before.get((process, name, kind), 0)
        return dict(counts)

    # Processes tell their node's exporter every ten seconds.
    end = time.monotonic() + PATIENCE_S
    while counted() != expected and time.monotonic() < end:
        time.sleep(1)
    assert counted() == expected
