"""What a driver needs for many clips: `python tests/benchmarks/planning.py`; some ten minutes.

The corpus is metadata alone: no video is there, every job's results are made up, and no Ray runs, so only planning,
looking up and publishing are left. Prints one JSON line per measure:
- planning: peak resident MB and seconds, at 10,000 and at 100,000 clips, of the run that makes the first version
  (`first`; its seconds also hold the making up) and of another that finds nothing to do.
- planning_per_clip: kB that one clip more adds to the larger of the peaks.
"""

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayramid.pipelines import curate
from rayramid.pipelines.encoders import Encoder
from rayramid.pipelines.identity import caption_id, digest
from rayramid.pipelines.job import Row, job_folder
from rayramid.pipelines.plan import Shard, read_shard
from rayramid.pipelines.receipts import Receipt
from rayramid.pipelines.spec import DataSpec, Keep

CLIPS = (10_000, 100_000)

PLACE = {"row_group": 0, "row": 0, "offset": 4, "length": 64 * 64, "crc32": 0}


def spec(folder: Path, clips: int) -> DataSpec:
    """Files that a manifest names; each is one clip."""
    manifest = folder / f"{clips}.jsonl"
    with manifest.open("w", encoding="utf-8") as file:
        for number in range(clips):
            caption = f"clip number {number}: somebody walks along a street in the rain and looks at the camera"
            file.write(json.dumps({"video": f"videos/{number % 100:02d}/{number:08d}.mp4", "caption": caption}) + "\n")
    root = folder / f"data-{clips}"
    for which in ("vae", "text"):
        place(root / "models" / f"{which}.json", asdict(Encoder(f"models/{which}/none", "none")))
    encode = {"sizes": ["64x64"], "frames": [9]}
    return DataSpec.model_validate({"root": str(root), "sources": [{"manifest": str(manifest)}], "encode": encode})


def run(spec: DataSpec) -> curate.Summary:
    """`curate.run` where each shard is committed at once, without Ray."""
    whole, curate.execute = curate.execute, _execute
    try:
        return curate.run(spec)
    finally:
        curate.execute = whole


def _execute(root: str, run: str, recipe: object, shards: Iterable[Shard], workers: object, on_shard: Any) -> None:
    for shard in shards:
        _, items = read_shard(shard.job, shard.plan, shard.row_group)
        file = f"{job_folder(shard.job, items[0].row)}/{shard.shard_id}-1.parquet"
        results = [RESULTS[shard.job](item.row) for item in items]
        rows = [{"item_id": item.item_id, **row} for item, (row, _) in zip(items, results, strict=True)]
        (Path(root) / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), Path(root) / file)
        facts = {item.item_id: fact for item, (_, fact) in zip(items, results, strict=True) if fact}
        count = len(items)
        receipt = Receipt(shard.job, shard.shard_id, file, "0" * 64, 1, count, count, 1, 1.0, (), facts)
        place(Path(root) / "_receipts" / shard.job / f"{shard.shard_id}.json", asdict(receipt))
        on_shard()


def place(path: Path, content: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _shots(row: Row) -> tuple[Row, Row]:
    clip = {"clip_id": digest("clip", row["source_id"]), "source_id": row["source_id"], "start_ms": 0, "end_ms": 10_000}
    return {**clip, "fps": 24.0, "width": 64, "height": 64, "codec": "h264"}, {}


def _score(row: Row) -> tuple[Row, Row]:
    share = int(row["clip_id"][:8], 16) / 2**32
    return dict.fromkeys(Keep.model_fields, share), {"preview": PLACE}


def _caption(row: Row) -> tuple[Row, Row]:
    caption = row["source_caption"]
    return {"clip_id": row["clip_id"], "caption_id": caption_id(caption), "caption": caption}, {}


def _embed(row: Row) -> tuple[Row, Row]:
    return {}, {"text_len": 20, "tokens": PLACE, "pooled": PLACE}


def _encode(row: Row) -> tuple[Row, Row]:
    known = {name: row[name] for name in ("latent_id", "width", "height", "frames", "fps")}
    moments = {"first_mean": 0.1, "first_std": 1.1, "later_mean": -0.1, "later_std": 0.9}
    return {}, {**known, "latent_dtype": "bf16", "vae_fingerprint": "none", **moments, "latent": PLACE}


RESULTS: dict[str, Callable[[Row], tuple[Row, Row]]] = {
    "shots": _shots,
    "score": _score,
    "caption": _caption,
    "embed": _embed,
    "encode": _encode,
}


def peak_mb() -> float:
    fields = Path("/proc/self/status").read_text().splitlines()
    return next(int(field.split()[1]) / 1024 for field in fields if field.startswith("VmHWM"))


def measured(folder: Path, clips: int, what: str) -> dict[str, Any]:
    """One run in a process of its own, since a peak never goes down."""
    command = [sys.executable, __file__, str(folder), str(clips), what]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    say(found)
    return found


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        few, many = (
            max(measured(Path(folder), clips, what)["driver_mb"] for what in ("first", "again")) for clips in CLIPS
        )
    say({"measure": "planning_per_clip", "kb": round((many - few) * 1024 / (CLIPS[1] - CLIPS[0]), 3)})


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    if len(sys.argv) == 1:
        main()
    else:
        place_of, count, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
        summary = run(spec(place_of, count))
        assert summary.kept == count
        measure = {"measure": "planning", "run": name, "clips": count}
        say({**measure, "driver_mb": round(peak_mb()), "seconds": summary.seconds})
