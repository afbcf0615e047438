"""What a job is: rows in, rows out, an exception for a row that cannot be done. It knows no Ray and no shards."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyarrow as pa

Row = dict[str, Any]


class Job(Protocol):
    """One of shots, score, caption, embed, encode."""

    @property
    def columns_out(self) -> pa.Schema:
        """The columns of a result row; every one may be null in a failed row."""

    @property
    def batch(self) -> int:
        """How many rows a call takes at best."""

    @property
    def facts(self) -> tuple[str, ...]:
        """Columns that the receipt repeats, per item."""

    def rows_per_group(self, row: Row) -> int:
        """Result rows in a Parquet row group of a shard with this input row: 1 where each is read on its own."""

    def __call__(self, rows: Sequence[Row]) -> list[list[Row]]:
        """For each row the rows it becomes: one, or for shots one per clip."""


# A worker builds its job itself, models and all; only the recipe travels.
Recipe = Callable[[], Job]


def job_folder(job: str, row: Row) -> str:
    """The folder below the root for the results of a row (all rows of a shard agree)."""
    return {
        "shots": "clips",
        "score": "scores",
        "caption": "captions",
        "embed": "text",
        "encode": f"latents/bucket={row.get('bucket')}",
    }[job]
