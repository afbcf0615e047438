"""Shard plans: which items a job works on together, decided once and never changed.

A plan is one Parquet file, a row group per shard. Items are named by what they are and how they are treated, so work
that a plan holds is never planned again; only `retry` plans failed items anew, as a later generation.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayramid.models import storage
from rayramid.pipelines.identity import digest
from rayramid.pipelines.parquet import open_parquet

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
    with ThreadPoolExecutor(_READERS) as pool:
        shards = [shard for found in pool.map(lambda url: _shards(url, job), _plans(root, job)) for shard in found]
    return sorted(shards, key=lambda shard: (shard.generation, shard.shard_id))


def read_shard(job: str, plan: str, row_group: int) -> tuple[Shard, list[Item]]:
    """One shard of a plan, with its rows."""
    table = open_parquet(plan).read_row_group(row_group)
    return _shard(table, plan, job, row_group), _items(table)


def planned_items(root: str, job: str) -> Iterator[Item]:
    """Every item ever planned for a job; those planned anew come again."""
    for url in _plans(root, job):
        yield from _items(open_parquet(url).read())


def planned(shards: Iterable[Shard]) -> set[str]:
    """The items that any of the shards holds."""
    return {item_id for shard in shards for item_id in shard.item_ids}


def _plans(root: str, job: str) -> list[str]:
    return list(storage.list_files(storage.join(root, "_plan", job), ".parquet"))


def _items(table: pa.Table) -> list[Item]:
    return [Item(row["item_id"], json.loads(row["row"])) for row in table.select(["item_id", "row"]).to_pylist()]


def _shards(url: str, job: str) -> list[Shard]:
    file = open_parquet(url)
    table = file.read(["shard_id", "generation", "item_id"])
    shards, start = [], 0
    for group in range(file.num_row_groups):
        length = file.metadata.row_group(group).num_rows
        shards.append(_shard(table.slice(start, length), url, job, group))
        start += length
    return shards


def _shard(table: pa.Table, url: str, job: str, row_group: int) -> Shard:
    return Shard(
        job=job,
        shard_id=table["shard_id"][0].as_py(),
        plan=url,
        row_group=row_group,
        generation=table["generation"][0].as_py(),
        item_ids=tuple(table["item_id"].to_pylist()),
    )
