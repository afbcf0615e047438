"""The Parquet files that carry tensors: their schemas, and a writer that knows where in the file every tensor lies.

A tensor column is uncompressed `large_binary` without dictionary, raw little-endian bf16, all values of a row group in
one page. So the values of a group are the last bytes of its column chunk, and a reader that knows an offset needs one
ranged read and no footer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal.isal_zlib import crc32

Row = Mapping[str, Any]

BYTES_PER_VALUE = 2  # bf16

# A value in a page of BYTE_ARRAYs follows its length, a 4-byte integer.
_LENGTH_PREFIX = 4
_ONE_PAGE = 1 << 30
# Bytes at either end of a tensor that tell it from what lies beside it.
_EDGE = 64

OUTCOME = [
    pa.field("item_id", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error", pa.string()),
    pa.field("message", pa.string()),
]

LATENT_SCHEMA = pa.schema(
    [
        ("latent_id", pa.string()),
        ("clip_id", pa.string()),
        ("source_id", pa.string()),
        ("uri", pa.string()),
        ("start_ms", pa.int64()),
        ("end_ms", pa.int64()),
        ("bucket", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("frames", pa.int32()),
        ("fps", pa.float64()),
        ("latent", pa.large_binary()),
        ("latent_shape", pa.list_(pa.int32(), 4)),
        ("latent_dtype", pa.string()),
        ("vae_fingerprint", pa.string()),
        ("first_mean", pa.float32()),
        ("first_std", pa.float32()),
        ("later_mean", pa.float32()),
        ("later_std", pa.float32()),
    ],
    metadata={"rayramid.format": "latents/v1", "rayramid.sampling": "posterior mean, un-normalised"},
)

TEXT_SCHEMA = pa.schema(
    [
        ("caption_id", pa.string()),
        ("caption", pa.string()),
        ("text_fingerprint", pa.string()),
        ("text_len", pa.int32()),
        # Neighbours in the file, so that one ranged read takes both.
        ("tokens", pa.large_binary()),
        ("pooled", pa.large_binary()),
        ("dtype", pa.string()),
    ],
    metadata={"rayramid.format": "text/v1"},
)


@dataclass(frozen=True)
class Place:
    """Where one tensor lies: its row group, row within it, and byte range in the file, with the CRC-32 of its bytes."""

    row_group: int
    row: int
    offset: int
    length: int
    crc32: int


@dataclass(frozen=True)
class _Tensor:
    """What is remembered of a tensor until its place is known; the edges are its first and last bytes."""

    length: int
    crc32: int
    edges: bytes


class LatentWriter:
    """Writes rows into one Parquet file, `rows_per_group` rows to a group, and finds the place of every tensor.

    A row whose tensors are null (a failed one) is written like any other and has no places.
    """

    def __init__(self, path: Path, schema: pa.Schema, rows_per_group: int) -> None:
        self._path = path
        self._schema = schema
        self._rows_per_group = rows_per_group
        self._tensors = [field.name for field in schema if field.type == pa.large_binary()]
        scalars = [name for name in schema.names if name not in self._tensors]
        self._scalars = pa.schema([schema.field(name) for name in scalars])
        # A single value is larger compressed, with a dictionary or statistics than without.
        single = rows_per_group == 1
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression={name: "NONE" if single or name in self._tensors else "ZSTD" for name in schema.names},
            use_dictionary=[n for n in scalars if pa.types.is_string(schema.field(n).type) and not single],
            write_statistics=[] if single else scalars,
            data_page_size=_ONE_PAGE,
        )
        self._buffer: list[Row] = []
        self._groups: list[list[dict[str, _Tensor]]] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows; full row groups go to the file at once."""
        for row in rows:
            self._buffer.append(row)
            if len(self._buffer) == self._rows_per_group:
                self._flush()

    def close(self) -> list[dict[str, Place]]:
        """Finish the file; for every row written, in order, the place of each of its tensors."""
        if self._buffer:
            self._flush()
        self._writer.close()
        metadata = pq.read_metadata(self._path)
        columns = (
            {metadata.row_group(0).column(c).path_in_schema: c for c in range(metadata.num_columns)}
            if self._groups
            else {}
        )
        places: list[dict[str, Place]] = []
        for group, rows in enumerate(self._groups):
            found: list[dict[str, Place]] = [{} for _ in rows]
            for name in self._tensors:
                chunk = metadata.row_group(group).column(columns[name])
                end = chunk.data_page_offset + chunk.total_compressed_size
                for number, row in reversed(list(enumerate(rows))):
                    if name in row:
                        length = row[name].length
                        found[number][name] = Place(group, number, end - length, length, row[name].crc32)
                        end -= length + _LENGTH_PREFIX
            places += found
        self._verify(places)
        return places

    def _flush(self) -> None:
        rows, self._buffer = self._buffer, []
        scalars = pa.Table.from_pylist(rows, schema=self._scalars)
        columns = [
            _column([row.get(name) for row in rows]) if name in self._tensors else scalars[name]
            for name in self._schema.names
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=len(rows))
        self._groups.append(
            [{name: _tensor(row[name]) for name in self._tensors if row.get(name) is not None} for row in rows]
        )

    def _verify(self, places: list[dict[str, Place]]) -> None:
        """Whether each tensor begins and ends where its place says; readers check the rest by the CRC."""
        rows = (row for group in self._groups for row in group)
        with self._path.open("rb") as file:
            for row, found in zip(rows, places, strict=True):
                for name, place in found.items():
                    file.seek(place.offset)
                    begin = file.read(min(_EDGE, place.length))
                    file.seek(place.offset + max(0, place.length - _EDGE))
                    assert begin + file.read(min(_EDGE, place.length)) == row[name].edges, (
                        f"{self._path}: a tensor is not where it should be"
                    )


def _tensor(value: bytes) -> _Tensor:
    return _Tensor(len(value), crc32(value), value[:_EDGE] + value[-_EDGE:])


def _column(values: Sequence[bytes | None]) -> pa.ChunkedArray:
    """The values as they lie in memory: Arrow's own conversion copies them, which takes half as long as writing."""
    return pa.chunked_array([pa.nulls(1, pa.large_binary()) if v is None else _borrowed(v) for v in values])


def _borrowed(value: bytes) -> pa.LargeBinaryArray:
    offsets = pa.py_buffer(np.array([0, len(value)], np.int64))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(value)])
