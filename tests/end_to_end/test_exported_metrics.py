"""Every metric of the catalogue is exported under the name that dashboards, alerts and docs use."""

import time

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE_S

from rayramid.pipelines.metrics import DriverMetrics
from rayramid.pipelines.metrics import WorkerMetrics as ShardMetrics
from rayramid.pipelines.receipts import Failure, Receipt
from rayramid.platform.observability.catalogue import CATALOGUE
from rayramid.platform.training.board import News
from rayramid.platform.training.prometheus import RunMetrics
from rayramid.platform.training.status import Status
from rayramid.serve.metrics import BrokerMetrics, WorkerMetrics

FACTS = ("skipped", "loss", "validation_loss", "gradient_norm", "learning_rate", "seconds_per_step", "wait_share")
MORE_FACTS = ("tokens_per_second", "frames_per_second", "mfu", "memory_gb")
RECEIPT = Receipt("shots", "0", "file", "sha", 10, 2, 1, 1, 0.5, (Failure("a", "a", "DecodeError", "broken", 1),), {})


def scraped():
    """Labels by sample, of this cluster's nodes."""
    found = {}
    for node in ray.nodes():
        if node["Alive"]:
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            for family in text_string_to_metric_families(httpx.get(url, timeout=60).text):
                for sample in family.samples:
                    if sample.name.startswith("ray_rayramid_"):
                        found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_what_is_scraped_is_the_catalogue(ray_cluster):
    run, broker, sampler = RunMetrics("/runs/a", "train", 10), BrokerMetrics(), WorkerMetrics()
    DriverMetrics("shots", 3).one_more()
    ShardMetrics("shots").count(RECEIPT)
    broker.ended(None)
    broker.ended("cancelled")
    broker.refused("queue_full")
    broker.died()
    sampler.video.inc(1.0)
    for histogram in (broker.wait, broker.first_frame, sampler.gap, sampler.sessions, sampler.fill, sampler.step):
        histogram.observe(0.5)
    expected = {sample: metric for metrics in CATALOGUE.values() for metric in metrics for sample in metric.samples}

    end, found = time.monotonic() + PATIENCE_S, {}
    while not expected.keys() <= found.keys() and time.monotonic() < end:
        # Ray forgets gauges, and exports what it is told every ten seconds.
        run.tell(News(Status(1, dict.fromkeys(FACTS + MORE_FACTS, 0.5), 1), 1, 1, ()))
        for gauge in (broker.queue, broker.running):
            gauge.set(1)
        sampler.cache("a-1", 1)
        time.sleep(1)
        found = scraped()
    assert {name for name in found if not name.endswith("_created")} == expected.keys()
    for sample, metric in expected.items():
        assert set(metric.labels) <= found[sample], sample
