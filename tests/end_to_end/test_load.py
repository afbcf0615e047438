"""Two hundred clients at a `rayramid serve` with two gateways, for three minutes."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
import ray
from crowd import Crowd
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE_S

from rayramid.serve.store import Store

CLIENTS, SECONDS = 200, 180.0
QUEUE, SESSIONS = 64, 8
LEAST_JOBS = 300
MIB = 2**20
# Allocators keep 7 to 14 MiB of some 500 videos; when the engine kept their sessions, they weighed 42.
GROWTH = 30 * MIB
GROWING = ("Gateway", "Broker", "Sampler")
SPEC = """
kind: serve
model: {model}
store: {store}
port: 0
keys: off
gateways: 2
sampler: {{threads: 1, max_sessions: {sessions}}}
limits: {{queue: {queue}}}
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_crowd_meets_no_error_and_leaves_no_session_memory_or_unended_job(ray_cluster, model_folder, tmp_path):
    store, spec = Store(str(tmp_path / "store")), tmp_path / "serve.yaml"
    # Processes that have ended have left their last numbers.
    others = set(gauges("cache_bytes")) | set(gauges("running_jobs"))
    spec.write_text(SPEC.format(model=model_folder, store=store.url, sessions=SESSIONS, queue=QUEUE))
    with subprocess.Popen(
        [sys.executable, "-m", "rayramid.platform.cli", "serve", str(spec), "--address", ray_cluster],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as server:
        try:
            url = next(line.split()[1] for line in server.stdout if line.startswith("at ")).removesuffix("/v1")
            # What is loaded and cached once is no leak.
            asyncio.run(Crowd(url).come(CLIENTS, SECONDS / 12))
            until(lambda: not unended(store))
            before = memory()

            crowd = Crowd(url)
            most = asyncio.run(watched(crowd, store))
            until(lambda: not unended(store))
            after = memory()

            statuses = {status for _, status in crowd.answers}
            assert not {status for status in statuses if status == 0 or status >= 500}, crowd.answers
            assert crowd.answers["POST", 429] > 0
            assert crowd.rude == 0
            assert most <= QUEUE + SESSIONS
            assert len(crowd.accepted) >= LEAST_JOBS, crowd.did
            assert ends(store, crowd.accepted - crowd.deleted) <= {"completed", "cancelled"}
            assert not {video_id for video_id in crowd.deleted if store.has(video_id)}
            assert before.keys() == after.keys()
            grown = {name: after[name] - before[name] for name in before}
            assert max(grown.values()) <= GROWTH, grown
            # It still works, and holds no keys and values of anybody else's video when this one has ended.
            with httpx.Client(base_url=f"{url}/v1", timeout=60) as http:
                video_id = http.post("/videos", json={"prompt": "a cat"}).json()["id"]
                until(lambda: http.get(f"/videos/{video_id}").json()["status"] == "completed")
            until(lambda: all(gauge(name, others) == 0 for name in ("running_jobs", "queue_jobs", "cache_bytes")))
        finally:
            server.terminate()
    assert server.returncode == 143


async def watched(crowd, store):
    """Let a crowd come; the most jobs that had not ended at any time."""
    most, coming = 0, asyncio.create_task(crowd.come(CLIENTS, SECONDS))
    while not coming.done():
        most = max(most, await asyncio.to_thread(unended, store))
        await asyncio.sleep(0.1)
    await coming
    return most


def unended(store):
    """How many jobs have not ended."""
    return sum(name.suffix == ".json" for name in Path(store.url, "open").iterdir())


def ends(store, video_ids):
    """How jobs have ended: `completed`, or the codes of their errors."""
    outcomes = [store.outcome(video_id) for video_id in video_ids]
    return {outcome.error.code if outcome.error else outcome.status for outcome in outcomes}


def memory():
    """Resident bytes of each replica's process by its deployment and pid, without those of the text encoders."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        name = " ".join(process.cmdline()).partition("ServeReplica:rayramid:")[2].partition(":")[0].strip()
        if name in GROWING:
            found[name, process.pid] = process.memory_info().rss
    assert len(found) == 4, found
    return found


def gauges(name):
    """A gauge's value in each process that has told it, where Prometheus reads it."""
    values = {}
    for node in ray.nodes():
        if node["Alive"]:
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            for family in text_string_to_metric_families(httpx.get(url, timeout=60).text):
                values |= {
                    each.labels["WorkerId"]: each.value
                    for each in family.samples
                    if each.name == f"ray_rayramid_serve_{name}"
                }
    return values


def gauge(name, others):
    """The sum over the processes that run now; None while none has told it."""
    values = [value for worker, value in gauges(name).items() if worker not in others]
    return sum(values) if values else None


def until(condition):
    """Return once a condition holds; jobs in the queue, and metrics that are told every ten seconds, take a while."""
    end = time.monotonic() + 3 * PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)
