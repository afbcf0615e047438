"""Arrow tables where dicts would do: a corpus of millions is held in a few hundred bytes per clip."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayramid.pipelines.job import Row

# Rows that are Python objects at a time.
BATCH = 4096


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The rows as dicts."""
    for batch in table.to_batches(max_chunksize=BATCH):
        yield from batch.to_pylist()


def computed(table: pa.Table, names: Sequence[str], function: Callable[..., Any], kind: pa.DataType) -> pa.ChunkedArray:
    """A column of a function of some others."""
    batches = table.select(names).to_batches(max_chunksize=BATCH)
    return pa.chunked_array(
        [
            pa.array([function(*values) for values in zip(*map(pa.Array.to_pylist, batch.columns), strict=True)], kind)
            for batch in batches
        ],
        kind,
    )


def constant(table: pa.Table, value: Any, kind: pa.DataType) -> pa.Array:
    """A column of one value."""
    return pa.repeat(pa.scalar(value, kind), table.num_rows)


def found(keys: pa.ChunkedArray, table: pa.Table, key: str) -> pa.Table:
    """For each key the first row of the table that has it, a row of nulls where none has."""
    return table.take(pc.index_in(keys, value_set=table[key]))


def beside(table: pa.Table, other: pa.Table) -> pa.Table:
    """The columns of both, row by row."""
    return pa.table({**_columns(table), **_columns(other)})


def distinct(table: pa.Table, key: str) -> pa.Table:
    """The first row of each key."""
    first = pc.index_in(table[key], value_set=table[key])
    return table.filter(pc.equal(first, pa.array(np.arange(table.num_rows, dtype=np.int32))))


def within(column: pa.ChunkedArray, values: Sequence[str] | pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each value is one of these; null is not."""
    among = values if isinstance(values, pa.ChunkedArray) else pa.array(values, column.type)
    return pc.is_in(column, value_set=among, skip_nulls=True)


def without(table: pa.Table, key: str, values: Sequence[str] | pa.ChunkedArray) -> pa.Table:
    """The rows whose key is not one of these."""
    return table.filter(pc.invert(within(table[key], values)))


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))
