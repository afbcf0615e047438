"""A corpus of metadata alone: no video is there and every job's results are made up, so that only planning is left."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayramid.pipelines import curate
from rayramid.pipelines.buckets import Bucket
from rayramid.pipelines.encoders import Encoder
from rayramid.pipelines.identity import caption_id, digest
from rayramid.pipelines.job import Row, job_folder
from rayramid.pipelines.plan import Item, Shard, read_shard
from rayramid.pipelines.receipts import Receipt
from rayramid.pipelines.spec import SCORES, DataSpec

PLACE = {"row_group": 0, "row": 0, "offset": 4, "length": 4096, "crc32": 0}


def spec(folder: Path, clips: int, **changes: Any) -> DataSpec:
    """Files that a manifest names; each is one clip of ten seconds."""
    manifest = folder / f"{clips}.jsonl"
    with manifest.open("w", encoding="utf-8") as file:
        for number in range(clips):
            caption = f"clip number {number}: somebody walks along a street in the rain and looks at the camera"
            file.write(json.dumps({"video": f"videos/{number % 100:02d}/{number:08d}.mp4", "caption": caption}) + "\n")
    root = folder / "data"
    for which in ("vae", "text"):
        if not (root / f"models/{which}.json").exists():
            make_encoder(root, which, "one")
    encode = {"sizes": ["64x64"], "frames": [9]}
    return DataSpec.model_validate(
        {"root": str(root), "sources": [{"manifest": str(manifest)}], "encode": encode, **changes}
    )


def make_encoder(root: Path, which: str, fingerprint: str) -> None:
    """An encoder of which the name is all that there is."""
    place(root / f"models/{which}.json", asdict(Encoder(f"models/{which}/{fingerprint}", fingerprint)))


def run(spec: DataSpec, only: str | None = None, limit: int | None = None) -> curate.Summary:
    """`curate.run` where each shard is committed at once, without Ray."""
    whole, curate.execute = curate.execute, _execute
    try:
        return curate.run(spec, only, limit)
    finally:
        curate.execute = whole


def _execute(root: str, run: str, recipe: Any, shards: Sequence[Shard], workers: object, on_shard: Any) -> None:
    for shard in shards:
        _, items = read_shard(shard.job, shard.plan, shard.row_group)
        _commit(Path(root), shard, items, [RESULTS[shard.job](item.row, recipe) for item in items])
        on_shard()


def _commit(root: Path, shard: Shard, items: Sequence[Item], results: Sequence[tuple[Row, Row]]) -> None:
    file = f"{job_folder(shard.job, items[0].row)}/{shard.shard_id}-1.parquet"
    rows = [{"item_id": item.item_id, **row} for item, (row, _) in zip(items, results, strict=True)]
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), root / file)
    facts = {item.item_id: fact for item, (_, fact) in zip(items, results, strict=True) if fact}
    count = len(items)
    receipt = Receipt(shard.job, shard.shard_id, file, "0" * 64, 1, count, count, 1, 1.0, (), facts)
    place(root / f"_receipts/{shard.job}/{shard.shard_id}.json", asdict(receipt))


def place(path: Path, content: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _shots(row: Row, recipe: Any) -> tuple[Row, Row]:
    clip = {"clip_id": digest("clip", row["source_id"]), "source_id": row["source_id"], "start_ms": 0, "end_ms": 10_000}
    return {**clip, "fps": 24.0, "width": 640, "height": 640, "codec": "h264"}, {}


def _score(row: Row, recipe: Any) -> tuple[Row, Row]:
    share = int(row["clip_id"][:8], 16) / 2**32
    return dict.fromkeys(SCORES, share), {"preview": PLACE}


def _caption(row: Row, recipe: Any) -> tuple[Row, Row]:
    caption = row["source_caption"]
    return {"clip_id": row["clip_id"], "caption_id": caption_id(caption), "caption": caption}, {}


def _embed(row: Row, recipe: Any) -> tuple[Row, Row]:
    return {}, {"text_len": 20, "tokens": PLACE, "pooled": PLACE}


def _encode(row: Row, recipe: Any) -> tuple[Row, Row]:
    known = {name: row[name] for name in ("latent_id", "width", "height", "frames", "fps")}
    _, fingerprint, _ = recipe.args
    moments = {"first_mean": 0.1, "first_std": 1.1, "later_mean": -0.1, "later_std": 0.9}
    latent = {**PLACE, "length": 2 * 16 * math.prod(Bucket(row["height"], row["width"], row["frames"]).grid)}
    return {}, {**known, "latent_dtype": "bf16", "vae_fingerprint": fingerprint, **moments, "latent": latent}


RESULTS: dict[str, Callable[[Row, Any], tuple[Row, Row]]] = {
    "shots": _shots,
    "score": _score,
    "caption": _caption,
    "embed": _embed,
    "encode": _encode,
}
