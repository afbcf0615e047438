"""What the data path costs beside the bare work, measured on this machine: `python tests/benchmarks/curation.py`.

Prints one JSON line per measure; some minutes for all of them, or those named: parquet, scores, models, encode, shards,
memory CLIPS.
- parquet_write: bytes per second of latents into the dataset, as a worker does it: into a file on its own disk with
  a CRC of each latent, the file's SHA-256, and a synced copy in its place; our Parquet file against a plain file of the
  same bytes, with checksums (`ratio`, ours / plain, the goal is 0.8) and without (`ratio_unchecked`).
- parquet_pages: the first of these steps alone, synced. Arrow copies a value twice on its way into a page, which takes
  as long as the system's own copy into its cache.
- parquet_read: one latent at random from such a file with its checksum, against the same bytes from a plain file, with
  (`ratio`, the goal is 0.8) and without (`ratio_unchecked`).
- encode: clips per second of the encode job's shards on Ray, one worker, against a bare loop of decoding and VAE.
- scores: clips per second of the score job in one worker, all scores of pixels and the preview, against a bare loop
  that decodes the same frames (the goal is 0.8).
- score_<model>: what each score of a model takes of a clip's four frames, in seconds: CLIP as ViT-L/14 with a caption,
  the aesthetic head on its embedding, text, NSFW; RAFT's flow beside Farneback's. Weights that no package brings are
  seeded: as large, as slow.
- shard_overhead: seconds that Ray adds to a shard, beside its own reads and writes.
- memory: peak resident MB of the driver and of the largest worker of each job, at 100 and at 1,000 clips.
What a driver takes for far more clips is measured by planning.py, without media.
"""

import functools
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import open_clip
import psutil
import pyarrow as pa
import ray
import torch
from isal.isal_zlib import crc32
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_small

from rayramid.models import storage
from rayramid.models.media.read import read_frames
from rayramid.models.media.write import write_mp4
from rayramid.models.sprites.clip import SpritesClip
from rayramid.models.vae.io import load_vae
from rayramid.models.vae.streaming import encode_video
from rayramid.pipelines import curate, plan
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.execute import execute
from rayramid.pipelines.frames import SourceFrames
from rayramid.pipelines.job import Row
from rayramid.pipelines.latents import LATENT_SCHEMA, LatentWriter
from rayramid.pipelines.plan import Item
from rayramid.pipelines.receipts import read_receipts
from rayramid.pipelines.score import Models, ScoreJob
from rayramid.pipelines.scoring.clip import Aesthetics
from rayramid.pipelines.scoring.motion import farneback, luma_of, motion_scores
from rayramid.pipelines.scoring.pixels import SIDE
from rayramid.pipelines.scoring.raft import Raft
from rayramid.pipelines.spec import DataSpec, Score, Workers
from rayramid.pipelines.worker import work

# Five seconds at 768p: 16 x 16 x 96 x 160 values.
LATENT_BYTES = 16 * 16 * 96 * 160 * 2
LATENTS = 24


def report(measure: str, **numbers: float) -> None:
    rounded = {name: round(number, 4) for name, number in numbers.items()}
    sys.stdout.write(json.dumps({"measure": measure, **rounded}) + "\n")
    sys.stdout.flush()


def fastest(*functions: Callable[[], object], repeats: int = 9) -> list[float]:
    """The least seconds that each takes; in turns, so that what else the machine does hits all alike."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, times, strict=True):
            begun = time.perf_counter()
            function()
            taken.append(time.perf_counter() - begun)
    return [min(taken) for taken in times]


def measure_parquet(folder: Path) -> None:
    draws = np.random.default_rng(0)
    rows = [
        {"latent_id": str(n), "bucket": "768x1280x16", "latent": draws.bytes(LATENT_BYTES), "latent_shape": [16] * 4}
        for n in range(LATENTS)
    ]
    ours, plain = folder / "ours.parquet", folder / "plain.bin"
    placed = str(folder / "placed.parquet")
    places = []

    def write_ours() -> None:
        writer = LatentWriter(ours, LATENT_SCHEMA, rows_per_group=1)
        writer.write(rows)
        places[:] = [place["latent"] for place in writer.close()]

    def write_plain(check: bool) -> None:
        with plain.open("wb") as file:
            for row in rows:
                file.write(row["latent"])
                if check:
                    crc32(row["latent"])

    def put(path: Path, check: bool) -> None:
        if check:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")
        storage.upload(path, placed)

    report_speeds(
        "parquet_write",
        lambda: (write_ours(), put(ours, True)),
        lambda check: (write_plain(check), put(plain, check)),
    )
    report_speeds(
        "parquet_pages",
        lambda: (write_ours(), sync(ours)),
        lambda check: (write_plain(check), sync(plain)),
    )

    order = draws.permutation(LATENTS).tolist()

    def read_ours() -> None:
        for number in order:
            place = places[number]
            data = storage.read_range(str(ours), place.offset, place.length)
            assert crc32(data) == place.crc32

    def read_plain(check: bool) -> None:
        with plain.open("rb") as file:
            for number in order:
                file.seek(number * LATENT_BYTES)
                data = file.read(LATENT_BYTES)
                assert not check or crc32(data) == places[number].crc32

    report_speeds("parquet_read", read_ours, read_plain)


def report_speeds(measure: str, ours: Callable[[], object], plain: Callable[[bool], object]) -> None:
    own, checked, unchecked = fastest(ours, lambda: plain(True), lambda: plain(False))
    megabytes = LATENTS * LATENT_BYTES / 1e6
    report(
        measure,
        ratio=checked / own,
        ratio_unchecked=unchecked / own,
        ours_mb_per_s=megabytes / own,
        plain_mb_per_s=megabytes / checked,
        unchecked_mb_per_s=megabytes / unchecked,
    )


def sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def cluster() -> Iterator[None]:
    temp = tempfile.mkdtemp(prefix="rb-", dir="/tmp")
    memory = 200 * 1024**2
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=memory,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
        _temp_dir=temp,
    )
    yield
    ray.shutdown()
    shutil.rmtree(temp, ignore_errors=True)


def spec_of(root: Path, source: dict[str, object], side: int, frames: int) -> DataSpec:
    return DataSpec.model_validate(
        {
            "root": str(root),
            "sources": [source],
            "shots": {"detector": "none", "min_s": 0.1},
            "encode": {"sizes": [f"{side}x{side}"], "frames": [frames]},
        }
    )


def measure_encode(folder: Path, clips: int = 64) -> None:
    files = folder / "files"
    files.mkdir()
    for index in range(clips):
        clip = SpritesClip(0, index, 128, 128, 33, 24.0)
        write_mp4(files / f"{index:03d}.mp4", np.concatenate(list(clip.read())), clip.fps, crf=6)
    spec = spec_of(folder / "encode", {"folder": str(files), "caption": "sprites"}, side=128, frames=33)
    summary = curate.run(spec)
    assert summary.kept == clips
    spent = sum(read_receipts(spec.root, "encode", lambda receipt: receipt.seconds).values())
    dataset = LatentDataset.open(spec.root)
    vae = load_vae(dataset.vae_url)
    uris = dataset.index["uri"].to_pylist()

    def bare() -> None:
        for uri in uris:
            encode_video(vae, read_frames(uri, fps=24, size=(128, 128)))

    torch.set_num_threads(1)
    (alone,) = fastest(bare, repeats=2)
    report("encode", ratio=alone / spent, ours_clips_per_s=clips / spent, bare_clips_per_s=clips / alone)


def measure_scores(folder: Path, clips: int = 24) -> None:
    """Two seconds of 1280 x 720 each, as cameras and the web give them."""
    files = folder / "scored"
    files.mkdir()
    rows = []
    for index in range(clips):
        clip = SpritesClip(1, index, 320, 180, 48, 24.0)
        frames = np.concatenate(list(clip.read())).repeat(4, axis=1).repeat(4, axis=2)
        write_mp4(files / f"{index:03d}.mp4", frames, clip.fps)
        known = {"uri": str(files / f"{index:03d}.mp4"), "kind": "video", "width": 1280, "height": 720, "fps": 24.0}
        rows.append({**known, "clip_id": str(index), "start_ms": 0, "end_ms": 2000, "source_caption": None})
    wanted = Score()
    job, frames = ScoreJob(wanted, deadline_s=60), SourceFrames(deadline_s=60)

    def bare() -> None:
        for row in rows:
            list(frames.read(row, (144, 256), fps=wanted.fps))

    def ours() -> None:
        for start in range(0, clips, job.batch):
            job(rows[start : start + job.batch])

    own, alone = fastest(ours, bare, repeats=3)
    report("scores", ratio=alone / own, ours_clips_per_s=clips / own, bare_clips_per_s=clips / alone)


def measure_models(folder: Path) -> None:
    """Sixteen frames of 256 x 144, as a score of two seconds decodes them."""
    torch.set_num_threads(1)
    shown = np.concatenate(list(SpritesClip(1, 0, 256, 144, 16, 8.0).read()))

    def score_by(name: str, function: Callable[[], object]) -> None:
        (seconds,) = fastest(function, repeats=3)
        report(f"score_{name}", seconds_per_clip=seconds)

    luma = luma_of(shown, SIDE)
    raft = folder / "raft.pth"
    torch.save(raft_small(weights=None).state_dict(), raft)
    for name, flow in (("farneback", farneback), ("raft", Raft(str(raft)))):
        score_by(name, functools.partial(motion_scores, luma, 8.0, flow))
    score_by("text", functools.partial(Models(Score(text=True)).scores, shown, None))
    score_by("nsfw", functools.partial(Models(Score(nsfw=True)).scores, shown, None))
    head = folder / "head.safetensors"
    save_file({"weight": torch.randn(1, 768), "bias": torch.zeros(1)}, head)
    aesthetics = Aesthetics(str(head))
    score_by("aesthetics", functools.partial(aesthetics, np.ones(768, np.float32)))
    score_by("clip", functools.partial(Models(Score(clip=seeded_clip(folder))).scores, shown, "a red ball falls"))


def seeded_clip(folder: Path) -> str:
    """OpenAI's ViT-L/14, 428 million weights, as open_clip publishes it."""
    config = {"model_cfg": open_clip.get_model_config("ViT-L-14-quickgelu"), "preprocess_cfg": {"mean": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = open_clip.model.CLIP(**config["model_cfg"])
    weights = {name: torch.randn(tensor.shape) * 0.02 for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return str(folder)


class Nothing:
    """A job that does nothing."""

    columns_out = pa.schema([("number", pa.int64())])
    batch = 1
    facts: tuple[str, ...] = ()

    def rows_per_group(self, row: Row) -> int:
        return 64

    def __call__(self, rows: list[Row]) -> list[list[Row]]:
        return [[row] for row in rows]


def measure_shard_overhead(folder: Path) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def shards(name: str, count: int) -> tuple[str, list[plan.Shard]]:
        root = str(folder / name)
        plan.write_plans(root, "score", [[Item(f"i{n}", {"number": n})] for n in range(count)], 0)
        return root, list(plan.read_plans(root, "score").shards)

    def on_ray(count: int) -> float:
        root, todo = shards(f"ray-{count}", count)
        begun = time.perf_counter()
        execute(root, "run", functools.partial(Nothing), todo, Workers(cpus=1), lambda: None)
        return time.perf_counter() - begun

    few, many = on_ray(10), on_ray(110)
    root, todo = shards("here", 100)
    begun = time.perf_counter()
    for shard in todo:
        work(root, "run", Nothing(), *plan.read_shard("score", shard.plan, shard.row_group))
    alone = (time.perf_counter() - begun) / 100
    report("shard_overhead", seconds=(many - few) / 100 - alone, shard_itself_s=alone, start_of_a_job_s=few)


def peak_mb(process: psutil.Process) -> float:
    fields = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(field.split()[1]) / 1024 for field in fields if field.startswith("VmHWM"))


def measure_memory_of(clips: int, folder: Path) -> None:
    peaks: dict[str, float] = {}
    job, done = ["shots"], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::MapWork"):
                        peaks[job[0]] = max(peaks.get(job[0], 0.0), peak_mb(process))
                except (psutil.NoSuchProcess, FileNotFoundError, StopIteration):
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    sprites = {"clips": clips, "width": 64, "height": 64, "frames": 9}
    spec = spec_of(folder / f"memory-{clips}", {"sprites": sprites}, side=64, frames=9)
    summary = curate.run(spec, on_progress=lambda name, *_: job.__setitem__(0, name))
    done.set()
    watcher.join()
    assert summary.kept == clips
    report("memory", clips=clips, driver=peak_mb(psutil.Process()), **peaks, seconds=summary.seconds)


def measure_memory(folder: Path) -> None:
    for clips in (100, 1000):
        # Each in a process of its own, since a peak never goes down.
        subprocess.run([sys.executable, __file__, "memory", str(clips)], check=True)


def in_cluster(measure: Callable[[Path], None]) -> Callable[[Path], None]:
    def measured(folder: Path) -> None:
        with cluster():
            measure(folder)

    return measured


MEASURES = {
    "parquet": measure_parquet,
    "scores": measure_scores,
    "models": measure_models,
    "encode": in_cluster(measure_encode),
    "shards": in_cluster(measure_shard_overhead),
    "memory": measure_memory,
}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        if sys.argv[1:2] == ["memory"] and sys.argv[2:]:
            in_cluster(functools.partial(measure_memory_of, int(sys.argv[2])))(Path(temporary))
        else:
            for name in sys.argv[1:] or MEASURES:
                MEASURES[name](Path(temporary))
