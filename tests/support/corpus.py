"""Small corpora of sprites for the data path's tests, what came of them, and drivers that can be killed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rayramid.models import storage
from rayramid.models.media.write import write_mp4
from rayramid.models.sprites.clip import SpritesClip
from rayramid.models.stores.store import MissingError
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.spec import JOBS, DataSpec


def spec(root: object, *sources: object, **changes: Any) -> DataSpec:
    """Clips of nine frames, 64x64, from folders or manifests."""
    plain = {
        "root": str(root),
        "sources": [{"manifest" if str(place).endswith("l") else "folder": str(place)} for place in sources],
        "shots": {"detector": "none", "min_s": 0.2},
        "caption": {"template": "sprites that move, {name}"},
        "encode": {"sizes": ["64x64"], "frames": [9]},
        "split": {"val": 0.5},
    }
    return DataSpec.model_validate({**plain, **changes})


def videos(folder: Path, clips: int, seed: int = 0, side: int = 64, frames: int = 9) -> Path:
    """Sprites in nearly lossless files to be cut, with their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(clips):
        clip = SpritesClip(seed, index, side, side, frames, 24.0)
        name = f"sprites-{seed}-{index:06d}.mp4"
        write_mp4(folder / name, np.concatenate(list(clip.read())), clip.fps, crf=6)
        lines.append(json.dumps({"video": name, "caption": clip.caption, "licence": "CC0-1.0"}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


def contents(root: object) -> list[tuple[str, ...]]:
    """What the newest version holds, whatever order or files it was written in."""
    rows = LatentDataset.open(str(root)).index.select(["clip_id", "uri", "split", "bucket"]).to_pylist()
    return sorted(tuple(row.values()) for row in rows)


DRIVER = """
import os, sys
import ray
from rayramid.pipelines import curate
from rayramid.pipelines.spec import DataSpec
environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
ray.init(address=sys.argv[1], runtime_env={"env_vars": environment}, logging_level="error", log_to_driver=False)
say = lambda job, done, total: print(job, done, total, flush=True)
summary = curate.run(DataSpec.model_validate_json(sys.argv[2]), on_progress=say)
print("kept", summary.kept, summary.failed, flush=True)
"""


def driver(address: str, spec: DataSpec) -> subprocess.Popen[str]:
    """A run in a process of its own; says `job done total` on each step and `kept N failed` at the end."""
    command = [sys.executable, "-c", DRIVER, address, spec.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=dict(os.environ))


def under_way(root: object) -> list[dict[str, Any]]:
    """What the workers noted about shards that are not committed: job, shard, worker, items."""
    found = []
    for job in JOBS:
        for url in storage.list_files(storage.join(str(root), "_attempts", job)):
            shard = url.split("/")[-2]
            if not storage.exists(storage.join(str(root), "_receipts", job, f"{shard}.json")):
                try:
                    found.append({**json.loads(storage.read_bytes(url)), "job": job, "shard": shard})
                except MissingError:
                    continue
    return found
