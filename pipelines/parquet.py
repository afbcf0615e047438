"""Parquet files at any URL, of which only what is asked for is read."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from rayramid.models import storage


def open_parquet(url: str) -> pq.ParquetFile:
    """A Parquet file; row groups and columns are fetched by range when they are read. MissingError if there is none."""
    local = storage.local_path(url)
    size = storage.size(url)
    return pq.ParquetFile(pa.PythonFile(_RangedFile(url, size), mode="r") if local is None else local)


class _RangedFile(io.RawIOBase):
    """A file at a URL, read by ranges."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url = url
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        length = self._size - self._at if size < 0 else min(size, self._size - self._at)
        data = storage.read_range(self._url, self._at, length) if length > 0 else b""
        self._at += len(data)
        return data
