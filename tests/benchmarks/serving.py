"""What serving costs, measured on this machine: `python tests/benchmarks/serving.py`, some minutes.

Names behind it choose measures, as in `python tests/benchmarks/serving.py first_segment gateway`.
A model of a million parameters with random weights makes videos of 128x128 on the CPU. Prints one JSON line per
measure; `ratio` is `other` / `ours` for batching and `ours` / `other` for the rest.
- batching: CPU seconds of 8 videos one after another (`other`) and at the same time (`ours`); the goal is 1.5 or more.
  `wall_ratio` is the same by the clock.
- long_video: CPU seconds of unit 30 (`ours`) and of unit 5 (`other`); the goal is 1.5 or less.
- first_segment: seconds from a request over HTTP to the first segment at the client (`ours`), and the mean time of a
  unit of that video (`other`), all units in equally many steps; the goal is 1.5 or less.
- gateway_retrieve, gateway_create: milliseconds of one request over HTTP (`ours`), the median of many, and of what it
  reads or writes in the store (`other`); the goal is 10 for the difference.
- keyed_retrieve, keyed_create: the same with API keys, of an endpoint of its own; the measure's name is `keyed`.
- idle_streams: CPU milliseconds in a second of gateway and broker while 200 streams wait for a video that is not being
  made (`ours`), beyond those without streams (`other`).
"""

import asyncio
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# Idle threads that spin for work would be counted, and other load would make it worse.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools

import httpx
import numpy as np
import psutil
import torch

from rayramid.models.card import ModelCard
from rayramid.models.checkpoint import Model as LoadedModel
from rayramid.models.checkpoint import load_model, save_model
from rayramid.models.dit.model import DiT
from rayramid.models.presets import preset
from rayramid.models.sampler import Sampler
from rayramid.models.tiny import write_tiny_text
from rayramid.models.vae.pca import pca_vae
from rayramid.serve.acceptance import Acceptance
from rayramid.serve.embeddings import Embeddings
from rayramid.serve.job import Job, Model, new_id
from rayramid.serve.keys import KeyRing
from rayramid.serve.spec import KeyLimits, Limits, SamplerOptions, ServeSpec
from rayramid.serve.store import Store
from rayramid.serve.wire import CreateVideo
from rayramid.serve.worker import Worker

FPS, SIZE, STEPS = 24.0, 128, 8
VIDEOS = 8
STREAMS, IDLE_S = 200, 20.0


def report(measure: str, **numbers: float | str) -> None:
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in numbers.items()}
    sys.stdout.write(json.dumps({"measure": measure, **rounded}) + "\n")
    sys.stdout.flush()


def make_model(folder: Path) -> str:
    config = preset("tiny")
    torch.manual_seed(0)
    dit = DiT(config)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    noise = np.random.default_rng(0)
    clips = (noise.integers(0, 256, (17, SIZE, SIZE, 3), np.uint8) for _ in range(4))
    card = ModelCard(
        preset="tiny",
        dit=dataclasses.asdict(config),
        pyramid={"levels": config.levels},
        fps=FPS,
        width=SIZE,
        height=SIZE,
        frames=25,
        steps=((STEPS,) * config.levels, (STEPS,) * config.levels),
        guidance=2.0,
        video_guidance=2.0,
    )
    write_tiny_text(folder / "text")
    save_model(str(folder / "model"), card, dit, pca_vae(clips), str(folder / "text"))
    return str(folder / "model")


# ---- the engine in this process --------------------------------------------------------------------------------------


class Bench:
    """A worker of its own, without Ray; `clock` says when each unit was there."""

    def __init__(self, loaded: LoadedModel, folder: Path) -> None:
        self.model = Model.of(loaded.card, None)
        self.accept = Acceptance(Limits())
        self.store = Store(str(folder))
        self.worker = Worker(
            self.store,
            Sampler(loaded.dit, loaded.pyramid),
            loaded.vae,
            Embeddings(loaded.text, 2**20).embed,
            version=self.model.version,
            tokens_per_step=10**6,
            cache_tokens=10**9,
        )

    def job(self, frames: int, seed: int) -> Job:
        request = CreateVideo(prompt=f"video {seed}", seconds=frames / FPS, seed=seed)
        job = self.accept.creation(request, self.model, new_id(), "bench", image=False)
        self.store.add(job)
        return job

    async def make(self, job: Job) -> list[float]:
        """CPU seconds at which each unit could be played."""
        times: list[float] = []
        async for progress in self.worker.run(job.id, 1):
            times += [time.process_time()] * (progress.units_done - len(times))
        return times

    async def all_of(self, jobs: list[Job], *, at_once: bool) -> None:
        if at_once:
            await asyncio.gather(*(self.make(job) for job in jobs))
        else:
            for job in jobs:
                await self.make(job)


def measure_batching(bench: Bench) -> None:
    async def main() -> dict[bool, tuple[float, float]]:
        loop = asyncio.create_task(bench.worker.engine.run())
        await bench.make(bench.job(25, 0))
        taken = {}
        for at_once in (False, True):
            jobs = [bench.job(25, seed) for seed in range(VIDEOS)]
            cpu, wall = time.process_time(), time.monotonic()
            await bench.all_of(jobs, at_once=at_once)
            taken[at_once] = time.process_time() - cpu, time.monotonic() - wall
        loop.cancel()
        return taken

    taken = asyncio.run(main())
    (other, other_wall), (ours, ours_wall) = taken[False], taken[True]
    report("batching", ratio=other / ours, wall_ratio=other_wall / ours_wall, ours=ours, other=other, unit="s")


def measure_long_video(bench: Bench) -> None:
    async def main() -> list[float]:
        loop = asyncio.create_task(bench.worker.engine.run())
        times = await bench.make(bench.job(1 + 8 * 32, 0))
        loop.cancel()
        return times

    times = asyncio.run(main())
    units = [after - before for before, after in itertools.pairwise(times)]
    # Units 4 to 6 and 29 to 31, since a single one's time is blurred by the one that is being decoded.
    early, late = statistics.mean(units[3:6]), statistics.mean(units[28:31])
    report("long_video", ratio=late / early, ours=late, other=early, unit="s")


# ---- the endpoint on Ray Serve ---------------------------------------------------------------------------------------


@contextmanager
def endpoint(model: str, folder: Path, *, keyed: bool = False) -> Iterator[str]:
    import ray

    from rayramid.serve.app import deploy, stop

    temp = tempfile.mkdtemp(prefix="rb-", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 1024**2,
        include_dashboard=False,
        _temp_dir=temp,
        log_to_driver=False,
    )
    try:
        options = SamplerOptions(threads=1, max_sessions=1)
        limits = Limits(queue=1000, per_key=KeyLimits())
        spec = ServeSpec(
            model=model, store=str(folder), port=0, keys=None if keyed else False, sampler=options, limits=limits
        )
        yield deploy(spec)
        stop()
    finally:
        ray.shutdown()


def measure_first_segment(url: str) -> None:
    best, unit = float("inf"), 0.0
    for repeat in range(5):
        with httpx.Client(base_url=f"{url}/v1", timeout=600) as http:
            started = time.monotonic()
            # A prompt that no cache knows.
            body = {"prompt": f"prompt number {repeat}", "seconds": (1 + 8 * 8) / FPS}
            video = http.post("/videos", json=body).json()
            arrived = []
            with http.stream("GET", f"/videos/{video['id']}/content?stream=1") as response:
                for _ in response.iter_raw():
                    arrived.append(time.monotonic())
            # The init segment comes with the first one.
            first, units = arrived[1] - started, (arrived[-1] - arrived[1]) / 8
        if first < best:
            best, unit = first, units
    report("first_segment", ratio=best / unit, ours=best, other=unit, unit="s")


def measure_gateway(url: str, folder: Path, name: str, key: str | None = None) -> None:
    store, scratch = Store(str(folder)), Store(f"{folder}-scratch")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=600) as http:
        video = http.post("/videos", json={"prompt": "a cat"}).json()["id"]
        while http.get(f"/videos/{video}").json()["status"] != "completed":
            time.sleep(0.2)
        retrieve, load = (
            median_ms(lambda: http.get(f"/videos/{video}"), 200),
            median_ms(lambda: store.video(video), 200),
        )
        report(f"{name}_retrieve", ours=retrieve, other=load, overhead=retrieve - load, unit="ms")
        blocker = http.post("/videos", json={"prompt": "x", "seconds": 60, "steps": 200}).json()["id"]
        job = store.job(blocker)
        assert job is not None
        created: list[str] = []

        def create() -> None:
            created.append(http.post("/videos", json={"prompt": "a cat"}).json()["id"])

        taken = median_ms(create, 50)
        keep = median_ms(lambda: scratch.add(job), 50)
        report(f"{name}_create", ours=taken, other=keep, overhead=taken - keep, unit="ms")
        for each in (*created, blocker):
            http.delete(f"/videos/{each}")


def median_ms(request: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.monotonic()
        request()
        taken.append(1000 * (time.monotonic() - started))
    return statistics.median(taken[times // 10 :])


def measure_idle_streams(url: str) -> None:
    with httpx.Client(base_url=f"{url}/v1", timeout=600, limits=httpx.Limits(max_connections=1000)) as http:
        blocker = http.post("/videos", json={"prompt": "x", "seconds": 60, "steps": 200}).json()["id"]
        waiting = http.post("/videos", json={"prompt": "a cat"}).json()["id"]
        before = cpu_ms_per_second()
        with ExitStack() as streams:
            for _ in range(STREAMS):
                streams.enter_context(http.stream("GET", f"/videos/{waiting}/content?stream=1"))
            time.sleep(2)
            during = cpu_ms_per_second()
        report("idle_streams", ours=during - before, other=before, unit="ms/s", streams=STREAMS)
        for each in (waiting, blocker):
            http.delete(f"/videos/{each}")


def cpu_ms_per_second() -> float:
    """Of the gateway and the broker."""
    processes = [
        each
        for each in psutil.Process().children(recursive=True)
        if any(name in " ".join(each.cmdline()) for name in ("Gateway", "Broker"))
    ]

    def spent() -> float:
        return sum(sum(each.cpu_times()[:2]) for each in processes)

    started, clock = spent(), time.monotonic()
    time.sleep(IDLE_S)
    return 1000 * (spent() - started) / (time.monotonic() - clock)


def main(chosen: set[str]) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        loaded = load_model(model)
        if "batching" in chosen:
            measure_batching(Bench(loaded, Path(folder, "batching")))
        if "long_video" in chosen:
            measure_long_video(Bench(loaded, Path(folder, "long")))
        if "keyed" in chosen:
            store = Path(folder, "keyed")
            _, key = KeyRing(str(store / "access")).create("benchmark", KeyLimits())
            with endpoint(model, store, keyed=True) as url:
                measure_gateway(url, store, "keyed", key)
        if not chosen - {"batching", "long_video", "keyed"}:
            return
        store = Path(folder, "store")
        with endpoint(model, store) as url:
            if "first_segment" in chosen:
                measure_first_segment(url)
            if "gateway" in chosen:
                measure_gateway(url, store, "gateway")
            if "idle_streams" in chosen:
                measure_idle_streams(url)


if __name__ == "__main__":
    main(set(sys.argv[1:]) or {"batching", "long_video", "first_segment", "gateway", "keyed", "idle_streams"})
