"""How items fared: plans and receipts joined, and the committed rows read back."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rayramid.models import storage
from rayramid.pipelines import receipts, tables
from rayramid.pipelines.job import Row
from rayramid.pipelines.ledger import Ledger, LedgerError
from rayramid.pipelines.parquet import open_parquet
from rayramid.pipelines.plan import Plans, Shard
from rayramid.pipelines.receipts import Failure

_ITEM = pa.field("item_id", pa.string())
_READERS = 16
# A table takes some kilobytes however few rows it has; those of so many shards become one.
_TOGETHER = 512


@dataclass(frozen=True)
class Outcomes:
    """How a job's items at hand fared, `items` in all.

    `rows` are the results of those that are ok: `item_id`, `file` (relative to the root) and what was asked for.
    """

    job: str
    items: int
    ok: int
    failures: Sequence[Failure]
    rows: pa.Table

    def ledger(self) -> Ledger:
        """The job's ledger; not yet checked."""
        failed = len(self.failures)
        return Ledger(self.job, self.items, self.ok, failed, self.items - self.ok - failed, self.rows.num_rows)


def none_of(job: str, items: int, columns: pa.Schema) -> Outcomes:
    """The outcomes of so many items while nothing can be done about them."""
    return Outcomes(job, items, 0, (), pa.schema([_ITEM, *columns, ("file", pa.string())]).empty_table())


def outcomes_of(
    root: str, job: str, plans: Plans, item_ids: pa.ChunkedArray | None = None, columns: pa.Schema | None = None
) -> Outcomes:
    """The outcomes of these items (of all that were ever planned if None).

    What a retry commits replaces the failure before it. `columns` are taken from the receipts where those have them (a
    tensor's place as `<tensor>_offset` and so on), else read from the result files.

    Raises:
        LedgerError: a receipt does not account for its shard.
    """
    done = plans.done(receipts.committed(root, job))
    planned = plans.items["item_id"].unique() if item_ids is None else item_ids
    done = done.filter(tables.within(done["item_id"], planned)).sort_by("shard")
    numbers, starts = np.unique(done["shard"].to_numpy(), return_index=True)
    bounds = [*starts.tolist(), done.num_rows]
    schema = pa.schema([]) if columns is None else columns

    def read(place: int) -> "_Part":
        ids = done["item_id"].slice(bounds[place], bounds[place + 1] - bounds[place])
        return _part(root, plans.shards[numbers[place]], ids, schema)

    failures: list[Failure] = []
    files: list[str] = []
    blocks = [pa.schema([_ITEM, *schema]).empty_table()]
    counts: list[int] = []
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(numbers), _TOGETHER):
            parts = list(pool.map(read, range(start, min(start + _TOGETHER, len(numbers)))))
            failures += [failure for part in parts for failure in part.failures]
            files += [part.file for part in parts]
            counts += [part.rows.num_rows for part in parts]
            blocks.append(pa.concat_tables([part.rows for part in parts]).combine_chunks())
    rows = pa.concat_tables(blocks)
    places = np.repeat(np.arange(len(files), dtype=np.int32), counts)
    rows = rows.append_column("file", pa.DictionaryArray.from_arrays(places, pa.array(files, pa.string())))
    return Outcomes(job, len(planned), done.num_rows - len(failures), failures, rows)


@dataclass(frozen=True)
class _Part:
    """What one shard says of the items at hand."""

    file: str
    failures: list[Failure]
    rows: pa.Table


def _part(root: str, shard: Shard, item_ids: pa.ChunkedArray, columns: pa.Schema) -> _Part:
    receipt = receipts.find(root, shard.job, shard.shard_id)
    assert receipt is not None
    if receipt.ok + len(receipt.failures) != shard.size:
        raise LedgerError(
            f"{shard.job} shard {shard.shard_id}: {shard.size} items, "
            f"but {receipt.ok} ok + {len(receipt.failures)} failed"
        )
    ids = set(item_ids.to_pylist())
    failures = [failure for failure in receipt.failures if failure.item_id in ids]
    ok = sorted(ids - {failure.item_id for failure in failures})
    facts = [{"item_id": item_id, **_flat(receipt.facts.get(item_id, {}))} for item_id in ok]
    told = [name for name in columns.names if facts and name in facts[0]]
    rows = pa.Table.from_pylist(facts, schema=pa.schema([_ITEM, *(columns.field(name) for name in told)]))
    stored = [name for name in columns.names if name not in told]
    if ok and stored:
        # Of files of tensors, which have a row group for each, receipts tell everything: they are never opened here.
        read = open_parquet(storage.join(root, receipt.file)).read(["item_id", *stored])
        read = read.filter(tables.within(read["item_id"], ok))
        # A file of an older release may not have what is asked for now.
        for name in set(stored) - set(read.column_names):
            read = read.append_column(name, pa.nulls(read.num_rows, columns.field(name).type))
        rows = tables.beside(tables.found(read["item_id"], rows, "item_id").drop(["item_id"]), read)
    schema = pa.schema([_ITEM, *columns])
    return _Part(receipt.file, failures, (rows if ok else schema.empty_table()).select(schema.names).cast(schema))


def _flat(facts: Row) -> Row:
    """A tensor's place as columns of their own."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        found |= {f"{name}_{part}": at for part, at in value.items()} if isinstance(value, dict) else {name: value}
    return found
