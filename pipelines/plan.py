"""Shard plans: which items a job works on together, decided once and never changed.

A plan is one Parquet file, a row group per shard. Items are named by what they are and how they are treated, so work
that a plan holds is never planned again; only `retry` plans failed items anew, as a later generation.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayramid.models import storage
from rayramid.pipelines.identity import digest

PLAN_SCHEMA = pa.schema(
    [
        ("shard_id", pa.string()),
        ("generation", pa.int32()),
        ("item_id", pa.string()),
        ("row", pa.string()),
    ]
)

# A worker that is done early takes another shard instead of waiting for the last.
SHARDS_PER_WORKER = 2

_READERS = 16


@dataclass(frozen=True)
class Item:
    """One row of work: what the job is given, under a name that follows from it and from how it is treated."""

    item_id: str
    row: dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """Items that one worker does in one go and commits together; the rows stay in the plan."""

    job: str
    shard_id: str
    plan: str
    row_group: int
    generation: int
    item_ids: tuple[str, ...]


def cut(items: Sequence[Item], largest: Callable[[Item], int], workers: int) -> list[list[Item]]:
    """Items cut into shards of one bucket each, of at most `largest` items, and small enough that no worker idles."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.row.get("bucket", ""), []).append(item)
    shards = []
    for _, members in sorted(groups.items()):
        size = max(1, min(largest(members[0]), math.ceil(len(members) / (SHARDS_PER_WORKER * workers))))
        shards += [members[i : i + size] for i in range(0, len(members), size)]
    return shards


def write_plan(root: str, job: str, shards: Sequence[Sequence[Item]], generation: int) -> str:
    """Persist shards as one immutable plan; the same shards give the same file."""
    names = [digest("shard", job, generation, sorted(item.item_id for item in shard)) for shard in shards]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, PLAN_SCHEMA, compression="zstd") as writer:
        for name, shard in zip(names, shards, strict=True):
            rows = [
                {"shard_id": name, "generation": generation, "item_id": item.item_id, "row": json.dumps(item.row)}
                for item in shard
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), row_group_size=len(rows))
    url = storage.join(root, "_plan", job, f"{digest('plan', names)}.parquet")
    storage.create(url, bytes(sink.getvalue()))
    return url


def read_plans(root: str, job: str) -> list[Shard]:
    """Every shard ever planned for a job, later generations last."""
    urls = list(storage.list_files(storage.join(root, "_plan", job), ".parquet"))
    with ThreadPoolExecutor(_READERS) as pool:
        shards = [shard for found in pool.map(lambda url: _shards(url, job), urls) for shard in found]
    return sorted(shards, key=lambda shard: (shard.generation, shard.shard_id))


def read_shard(job: str, plan: str, row_group: int) -> tuple[Shard, list[Item]]:
    """One shard of a plan, with its rows."""
    file = _open(plan)
    items = [Item(row["item_id"], json.loads(row["row"])) for row in file.read_row_group(row_group).to_pylist()]
    return _shard(file, plan, job, row_group), items


def planned(shards: Iterable[Shard]) -> set[str]:
    """The items that any of the shards holds."""
    return {item_id for shard in shards for item_id in shard.item_ids}


def _open(url: str) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(storage.read_bytes(url)))


def _shards(url: str, job: str) -> list[Shard]:
    file = _open(url)
    return [_shard(file, url, job, group) for group in range(file.num_row_groups)]


def _shard(file: pq.ParquetFile, url: str, job: str, row_group: int) -> Shard:
    table = file.read_row_group(row_group, columns=["shard_id", "generation", "item_id"])
    return Shard(
        job=job,
        shard_id=table["shard_id"][0].as_py(),
        plan=url,
        row_group=row_group,
        generation=table["generation"][0].as_py(),
        item_ids=tuple(table["item_id"].to_pylist()),
    )
