"""Job 3: a caption for every kept clip, from its source or from a template."""

from collections.abc import Sequence

import pyarrow as pa

from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.job import Row

COLUMNS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("caption_id", pa.string()),
        ("caption", pa.string()),
        ("origin", pa.string()),
    ]
)


class CaptionJob:
    """Rows are clips, each with its `template`; a result row is a caption with its origin, `source` or `template`."""

    columns_out = COLUMNS
    batch = 256
    facts: tuple[str, ...] = ()

    def rows_per_group(self, row: Row) -> int:
        """Rows are read together."""
        return 4096

    def __call__(self, rows: Sequence[Row]) -> list[list[Row]]:
        """One caption per clip; ValueError for a clip without one."""
        return [[self._caption(row)] for row in rows]

    def _caption(self, row: Row) -> Row:
        if row["source_caption"]:
            caption, origin = row["source_caption"].strip(), "source"
        elif row["template"] is not None:
            caption, origin = row["template"].format(**fields(row)), "template"
        else:
            raise ValueError("the source has no caption and the spec no caption.template")
        return {"clip_id": row["clip_id"], "caption_id": caption_id(caption), "caption": caption, "origin": origin}


def fields(row: Row) -> dict[str, object]:
    """What a template may name: the file's name as words, the clip's size and length."""
    stem = row["name"].rpartition("/")[2].rpartition(".")[0]
    return {
        "name": " ".join(stem.replace("_", " ").replace("-", " ").split()),
        "width": row["width"],
        "height": row["height"],
        "duration_s": f"{(row['end_ms'] - row['start_ms']) / 1000:g}",
    }
