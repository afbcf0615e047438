"""Workers and drivers killed by signal 9 at random moments: the same set of clips as if nothing had happened."""

import logging
import os
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from corpus import contents, driver, spec, under_way, videos

from rayramid.pipelines import curate
from rayramid.pipelines.spec import JOBS

log = logging.getLogger(__name__)
CLIPS = 16
# Two workers with two shards each, so that there is something to lose at every moment.
WORKERS = {job: {"count": 2, "cpus": 0.5} for job in JOBS}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return videos(tmp_path_factory.mktemp("videos"), CLIPS)


@pytest.fixture(scope="module")
def calm(ray_cluster, corpus, tmp_path_factory):
    """What an undisturbed run makes: its ledgers and contents."""
    root = tmp_path_factory.mktemp("calm")
    return curate.run(spec(root, corpus, workers=WORKERS)).ledgers, contents(root)


def workers_of_this_cluster():
    # Ray names a process after the task it runs; the pool's actors are MapWorkers.
    return [
        process for process in psutil.Process().children(recursive=True) if process.name().startswith("ray::MapWork")
    ]


def phase_of(root, pid):
    """What a (stopped) worker was doing, by its notes."""
    notes = [note for note in under_way(root) if note["worker"]["pid"] == pid]
    if not notes:
        return "idle or starting"
    return f"{notes[-1]['job']}: " + ("in the middle of a shard" if notes[-1]["items"] else "before the receipt")


def hunt(root, seed, progress, finished, hits):
    """Kill one worker in each job, a random while after the job's first shard was begun."""
    rng = random.Random(seed)
    while not finished.wait(0.005):
        job = progress.get("now")
        if job is None or job in hits or not (mine := [note for note in under_way(root) if note["job"] == job]):
            continue
        time.sleep(rng.uniform(0, 0.3))
        alive = {process.pid: process for process in workers_of_this_cluster()}
        noted = [note["worker"]["pid"] for note in mine if note["worker"]["pid"] in alive]
        victim = alive[rng.choice(noted)] if noted else rng.choice(list(alive.values()) or [None])
        if victim is None:
            continue
        try:
            victim.suspend()
            hits[job] = phase_of(root, victim.pid)
            victim.kill()
        except psutil.NoSuchProcess:
            hits.pop(job, None)


@pytest.mark.parametrize("seed", range(4))
def test_killed_workers_cost_nothing(ray_cluster, corpus, calm, tmp_path, seed, record_property):
    progress, finished, hits = {}, threading.Event(), {}
    hunter = threading.Thread(target=hunt, args=(tmp_path, seed, progress, finished, hits))
    hunter.start()
    try:
        summary = curate.run(
            spec(tmp_path, corpus, workers=WORKERS), on_progress=lambda job, done, total: progress.update(now=job)
        )
    finally:
        finished.set()
        hunter.join()
    record_property("hits", hits)
    log.warning("workers killed", extra={"seed": seed, "hits": hits})
    assert any("in the middle of a shard" in phase for phase in hits.values()), hits
    assert len(hits) >= 3, hits
    ledgers, clips = calm
    assert summary.ledgers == ledgers
    assert contents(tmp_path) == clips


def killed_driver(address, run, rng, wait):
    """Start a run and kill its driver when `wait` is over; say what was under way."""
    with driver(address, run) as process:
        wait(process, rng)
        alive = process.poll() is None
        phases = sorted(
            {f"{note['job']} {'mid-shard' if note['items'] else 'starting'}" for note in under_way(run.root)}
        )
        os.killpg(process.pid, signal.SIGKILL)
    return (", ".join(phases) or "no shard under way") if alive else "not killed"


def until_a_shard_is_under_way(root, job):
    """Until the job's workers have noted what they are at."""

    def wait(process, rng):
        while process.poll() is None and not any(note["job"] == job and note["items"] for note in under_way(root)):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))

    return wait


def until_any_moment(process, rng):
    """Until a random while after a random job was given out."""
    job = rng.choice(JOBS)
    assert process.stdout is not None
    next((line for line in process.stdout if line.split()[0] in (job, "kept")), None)
    time.sleep(rng.uniform(0, 3))


@pytest.mark.parametrize(("seed", "job"), enumerate(["shots", "score", "encode", "encode"]))
def test_a_killed_driver_goes_on_where_it_was(ray_cluster, corpus, calm, tmp_path, seed, job, record_property):
    rng = random.Random(seed)
    run = spec(tmp_path, corpus, workers=WORKERS)
    waits = (until_a_shard_is_under_way(run.root, job), until_any_moment)
    hits = [killed_driver(ray_cluster, run, rng, wait) for wait in waits]
    record_property("hits", hits)
    log.warning("drivers killed", extra={"seed": seed, "hits": hits})
    assert f"{job} mid-shard" in hits[0], hits
    before = {path: path.stat().st_mtime_ns for path in Path(tmp_path, "_receipts").rglob("*.json")}
    # The dead driver's workers may finish what they hold; the next run must not mind.
    summary = curate.run(run)
    ledgers, clips = calm
    assert summary.ledgers == ledgers
    assert contents(tmp_path) == clips
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
