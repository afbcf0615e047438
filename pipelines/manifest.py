"""Versions of a dataset: `_manifest/v<N>.json` with its index and text tables, never changed once written.

A number belongs to whoever creates its index first, so two runs cannot write the same version; a crash in between
leaves a gap in the numbers. `v<N>.json` is written last and makes the version real; `_LATEST` points at the one that is
read unless another is named.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.stores.store import MissingError
from rayramid.pipelines import tables

FORMAT_VERSION = 1

INDEX_SCHEMA = pa.schema(
    [
        ("latent_id", pa.string()),
        ("clip_id", pa.string()),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("split", pa.string()),
        ("kind", pa.string()),
        ("licence", pa.string()),
        ("bucket", pa.string()),
        ("file", pa.string()),
        ("row_group", pa.int32()),
        ("row", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("crc32", pa.int64()),
        ("t", pa.int32()),
        ("h", pa.int32()),
        ("w", pa.int32()),
        ("frames", pa.int32()),
        ("fps", pa.float64()),
        ("caption_ids", pa.list_(pa.string())),
        ("text_lens", pa.list_(pa.int32())),
        ("first_mean", pa.float64()),
        ("first_std", pa.float64()),
        ("later_mean", pa.float64()),
        ("later_std", pa.float64()),
    ]
)

TEXT_INDEX_SCHEMA = pa.schema(
    [
        ("caption_id", pa.string()),
        # Those of millions of clips may be more than 2 GiB together.
        ("caption", pa.large_string()),
        ("file", pa.string()),
        ("row_group", pa.int32()),
        ("row", pa.int32()),
        ("text_len", pa.int32()),
        ("tokens_offset", pa.int64()),
        ("tokens_length", pa.int64()),
        ("tokens_crc32", pa.int64()),
        ("pooled_offset", pa.int64()),
        ("pooled_length", pa.int64()),
        ("pooled_crc32", pa.int64()),
    ]
)


def latest(root: str) -> int | None:
    """The number of the version that is read unless another is named, None where there is none."""
    try:
        return int(storage.read_bytes(storage.join(root, "_manifest", "_LATEST")))
    except MissingError:
        return None


def read(root: str, version: int | None = None) -> dict[str, Any]:
    """The manifest of a version (the latest if None); UserError if it does not exist."""
    number = latest(root)
    if number is None:
        raise UserError(f"{root}: no dataset here; make one with `rayramid data run SPEC`")
    wanted = number if version is None else version
    try:
        return dict(json.loads(storage.read_bytes(_file(root, wanted, ".json"))))
    except MissingError:
        raise UserError(f"{root}: no version {wanted}; the latest is {number}") from None


def read_all(root: str) -> list[dict[str, Any]]:
    """The manifests of all versions, the oldest first."""
    found = [
        json.loads(storage.read_bytes(url)) for url in storage.list_files(storage.join(root, "_manifest"), ".json")
    ]
    return sorted(found, key=lambda manifest: int(manifest["version"]))


def read_index(root: str, manifest: Mapping[str, Any]) -> pa.Table:
    """One row per latent, in the order that makes a row's number a name within its version."""
    return _read_table(root, manifest, "index")


def read_text_index(root: str, manifest: Mapping[str, Any]) -> pa.Table:
    """One row per caption."""
    return _read_table(root, manifest, "text_index")


def publish(
    root: str, facts: Mapping[str, Any], index: pa.Table, text_index: pa.Table, *, whole: bool = True
) -> tuple[int, bool]:
    """Make a version of these tables; returns its number and whether it is new (equal content makes no new version).

    Args:
        root: of the dataset.
        facts: go into the manifest beside what follows from the tables (`contents`), and win where both say something.
        index: one row per latent.
        text_index: one row per caption.
        whole: the tables hold all that there is. A part of it becomes a version too, but not the latest one while that
            holds clips which the part lacks: nobody's training shrinks because somebody tried something out.
    """
    parts = {"index": _encode(index.cast(INDEX_SCHEMA)), "text_index": _encode(text_index.cast(TEXT_INDEX_SCHEMA))}
    content = hashlib.sha256(b"".join(parts.values())).hexdigest()
    parent = latest(root)
    replaces = whole or parent is None or _holds_all(index, read_index(root, read(root, parent)))
    for known in [read(root, parent)] if replaces and parent is not None else read_all(root):
        if known["content"] == content:
            return int(known["version"]), False
    number = 1 if parent is None else parent + 1
    while not storage.create(_file(root, number, ".index.parquet"), parts["index"]):
        number += 1
    storage.write_atomic(_file(root, number, ".text.parquet"), parts["text_index"])
    manifest = {
        "format_version": FORMAT_VERSION,
        "version": number,
        "parent": parent,
        "content": content,
        "index": {"file": f"_manifest/v{number}.index.parquet", "sha256": hashlib.sha256(parts["index"]).hexdigest()},
        "text_index": {
            "file": f"_manifest/v{number}.text.parquet",
            "sha256": hashlib.sha256(parts["text_index"]).hexdigest(),
        },
        **contents(index, text_index),
        **facts,
    }
    storage.write_atomic(_file(root, number, ".json"), json.dumps(manifest, indent=1, sort_keys=True).encode())
    if replaces:
        storage.write_atomic(storage.join(root, "_manifest", "_LATEST"), str(number).encode())
    return number, True


def contents(index: pa.Table, text_index: pa.Table) -> dict[str, Any]:
    """What a manifest says about its tables: clips by split and bucket, their frame rate, statistics, files."""
    rates = index["fps"].unique().to_pylist()
    assert len(rates) <= 1, f"a version has one frame rate, not {rates}"
    return {
        "clips": index.num_rows,
        "fps": rates[0] if rates else None,
        "splits": _counts(index["split"]),
        "buckets": _counts(index["bucket"]),
        "statistics": statistics(index),
        "files": sorted({*index["file"].unique().to_pylist(), *text_index["file"].unique().to_pylist()}),
    }


def statistics(index: pa.Table) -> dict[str, float | None]:
    """Mean and standard deviation of raw latents over all clips: of first latents and of later ones apart."""
    found: dict[str, float | None] = {}
    for which in ("first", "later"):
        pairs = index.select([f"{which}_mean", f"{which}_std"]).drop_null()
        means, deviations = (column.to_numpy() for column in pairs.columns)
        # Clips count alike, whatever their length: the law of total variance over clips.
        found[f"{which}_mean"] = float(means.mean()) if len(means) else None
        found[f"{which}_std"] = float(np.sqrt(means.var() + (deviations**2).mean())) if len(means) else None
    return found


def sort_index(index: pa.Table) -> pa.Table:
    """By bucket, then by latent: the order of every version."""
    return index.sort_by([(name, "ascending") for name in ("h", "w", "t", "latent_id")]).combine_chunks()


def _holds_all(index: pa.Table, other: pa.Table) -> bool:
    return tables.without(other, "clip_id", index["clip_id"]).num_rows == 0


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = pc.value_counts(column).to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counts, key=lambda row: str(row["values"]))}


def _file(root: str, number: int, suffix: str) -> str:
    return storage.join(root, "_manifest", f"v{number}{suffix}")


def _encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    # One chunk and one schema: equal tables are equal bytes, wherever they come from.
    pq.write_table(table.combine_chunks(), sink, compression="zstd")
    return bytes(sink.getvalue())


def _read_table(root: str, manifest: Mapping[str, Any], part: str) -> pa.Table:
    entry = manifest[part]
    data = storage.read_bytes(storage.join(root, entry["file"]))
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise UserError(
            f"{storage.join(root, entry['file'])}: not the file that version {manifest['version']} was made with"
        )
    return pq.read_table(pa.BufferReader(data))
