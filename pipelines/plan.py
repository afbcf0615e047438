"""Shard plans: which items a job works on together, decided once and never changed.

A plan is one Parquet file, a row group per shard. Items are named by what they are and how they are treated, so work
that a plan holds is never planned again; only `retry` plans failed items anew, as a later generation.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayramid.models import storage
from rayramid.pipelines import tables
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
# More make another file: a plan is made in memory.
SHARDS_PER_PLAN = 256

_READERS = 16


@dataclass(frozen=True)
class Item:
    """One row of work: what the job is given, under a name that follows from it and from how it is treated."""

    item_id: str
    row: dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """So many items that one worker does in one go and commits together; they stay in the plan."""

    job: str
    shard_id: str
    plan: str
    row_group: int
    generation: int
    size: int


@dataclass(frozen=True)
class Plans:
    """Everything ever planned for a job: its shards, later generations last, and which of them holds an item.

    `items` has the columns `item_id` and `shard`, a position in `shards`, and is in their order; an item that was
    planned anew is there again.
    """

    shards: Sequence[Shard]
    items: pa.Table

    def missing(self, items: pa.Table) -> pa.Table:
        """Those of these items that no shard holds."""
        return tables.without(items, "item_id", self.items["item_id"])

    def done(self, committed: Collection[str]) -> pa.Table:
        """The `items` of shards that are committed; of an item that was planned anew the latest place alone."""
        items = self._of(committed, done=True)
        return tables.distinct(items.take(np.arange(items.num_rows)[::-1]), "item_id")

    def left(self, committed: Collection[str]) -> pa.Table:
        """The `items` of shards that are not committed."""
        return self._of(committed, done=False)

    def waiting(self, item_ids: pa.ChunkedArray, committed: Collection[str]) -> list[Shard]:
        """The shards that hold any of these items and are not committed."""
        left = self.left(committed)
        left = left.filter(tables.within(left["item_id"], item_ids))
        return [self.shards[number] for number in np.unique(left["shard"].to_numpy())]

    def _of(self, committed: Collection[str], *, done: bool) -> pa.Table:
        states = np.array([shard.shard_id in committed for shard in self.shards], bool)
        return self.items.filter(pa.array(states[self.items["shard"].to_numpy()] == done))


def cut(items: pa.Table, largest: Callable[[Item], int], workers: int) -> Iterator[list[Item]]:
    """Items cut into shards of one bucket each, of at most `largest` items, and small enough that no worker idles."""
    if "bucket" not in items.column_names:
        groups = [items]
    else:
        groups = [
            items.filter(tables.within(items["bucket"], [name]))
            for name in sorted(items["bucket"].unique().to_pylist())
        ]
    for group in groups:
        if group.num_rows == 0:
            continue
        (first,) = _items(group.slice(0, 1))
        size = max(1, min(largest(first), math.ceil(group.num_rows / (SHARDS_PER_WORKER * workers))))
        for start in range(0, group.num_rows, size):
            yield _items(group.slice(start, size))


def write_plans(root: str, job: str, shards: Iterable[Sequence[Item]], generation: int) -> list[str]:
    """Persist shards as immutable plans; the same shards give the same files."""
    left = iter(shards)
    return [_write(root, job, some, generation) for some in iter(lambda: list(islice(left, SHARDS_PER_PLAN)), [])]


def read_plans(root: str, job: str) -> Plans:
    """Every plan of a job."""
    with ThreadPoolExecutor(_READERS) as pool:
        read = [pair for found in pool.map(lambda url: _shards(url, job), _plans(root, job)) for pair in found]
    read.sort(key=lambda pair: (pair[0].generation, pair[0].shard_id))
    shards = [shard for shard, _ in read]
    numbers = np.repeat(np.arange(len(shards), dtype=np.int32), [shard.size for shard in shards])
    items = pa.chunked_array([ids for _, chunks in read for ids in chunks], pa.string())
    return Plans(shards, pa.table({"item_id": items, "shard": numbers}).combine_chunks())


def read_shard(job: str, plan: str, row_group: int) -> tuple[Shard, list[Item]]:
    """One shard of a plan, with its rows."""
    table = open_parquet(plan).read_row_group(row_group)
    return _shard(table, plan, job, row_group), _planned(table)


def planned_items(root: str, job: str) -> Iterator[Item]:
    """Every item ever planned for a job; those planned anew come again."""
    for url in _plans(root, job):
        file = open_parquet(url)
        for group in range(file.num_row_groups):
            yield from _planned(file.read_row_group(group))


def _plans(root: str, job: str) -> list[str]:
    return list(storage.list_files(storage.join(root, "_plan", job), ".parquet"))


def _items(table: pa.Table) -> list[Item]:
    return [Item(row.pop("item_id"), row) for row in table.to_pylist()]


def _planned(table: pa.Table) -> list[Item]:
    return [Item(row["item_id"], json.loads(row["row"])) for row in table.select(["item_id", "row"]).to_pylist()]


def _write(root: str, job: str, shards: Sequence[Sequence[Item]], generation: int) -> str:
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


def _shards(url: str, job: str) -> list[tuple[Shard, Sequence[pa.Array]]]:
    """The shards of one file, each with the ids of its items."""
    file = open_parquet(url)
    table = file.read(["shard_id", "generation", "item_id"])
    found, start = [], 0
    for group in range(file.num_row_groups):
        length = file.metadata.row_group(group).num_rows
        part = table.slice(start, length)
        found.append((_shard(part, url, job, group), part["item_id"].chunks))
        start += length
    return found


def _shard(table: pa.Table, url: str, job: str, row_group: int) -> Shard:
    return Shard(
        job=job,
        shard_id=table["shard_id"][0].as_py(),
        plan=url,
        row_group=row_group,
        generation=table["generation"][0].as_py(),
        size=table.num_rows,
    )
