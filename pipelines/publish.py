"""From a curation to a version of the dataset: the index of what is kept, the statistics, the failures' view."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import manifest, tables
from rayramid.pipelines.buckets import SPATIAL_RATIO, TEMPORAL_RATIO
from rayramid.pipelines.curation import Curation
from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.ledger import LedgerError
from rayramid.pipelines.removals import Removals
from rayramid.pipelines.spec import JOBS, DataSpec


def publish(
    spec: DataSpec, curation: Curation, removals: Removals, code: dict[str, str], *, limited: bool
) -> tuple[int | None, bool]:
    """Make a version of the kept clips; its number and whether it is new. None while there is nothing to train on.

    Args:
        spec: of the run.
        curation: the corpus at hand.
        removals: were left out of the curation before; the manifest only names them.
        code: versions of what made it.
        limited: the corpus at hand is not all of the spec's.
    """
    keep = pc.equal(curation.fates, "kept")
    empty = tables.found(pa.chunked_array([[caption_id("")]]), curation.captions, "caption_id")
    if not pc.any(keep).as_py() or not empty["ok"][0].as_py():
        return None, False
    assert curation.vae is not None
    assert curation.text is not None
    kept = _Kept(
        clips=curation.clips.select(["clip_id", "source_id", "uri", "split", "kind", "licence"]).filter(keep),
        buckets=curation.verdicts.select(["bucket", "height", "width", "frames"]).filter(keep),
        captions=curation.results["caption"].select(["caption_id", "short_id"]).filter(keep),
        texts=curation.results["embed"].select(["text_len", "short_len"]).filter(keep),
        latents=curation.results["encode"].filter(keep),
    )
    _refuse_foreign(kept, spec.encode.fps, curation.vae.fingerprint, spec.root)
    index = manifest.sort_index(_index(kept))
    texts = _text_index(curation.captions, _joined(kept.captions["caption_id"], kept.captions["short_id"]))
    if len(index["latent_id"].unique()) != index.num_rows:
        raise LedgerError("a latent would be in the version twice")
    facts = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code,
        "spec": spec.model_dump(mode="json"),
        "vae": asdict(curation.vae),
        "text": asdict(curation.text),
        "fates": {fate: curation.count(fate) for fate in ("kept", "rejected", "failed", "pending")},
        "removals": removals.records(),
    }
    return manifest.publish(spec.root, facts, index, texts, whole=not limited and not curation.count("pending"))


def write_failures(root: str, curation: Curation) -> None:
    """The view of all failures of the corpus at hand: `failed/<job>.jsonl`, one line each."""
    for job in JOBS:
        lines = [json.dumps(asdict(failure)) for failure in curation.failures[job]]
        url = storage.join(root, "failed", f"{job}.jsonl")
        if lines:
            storage.write_atomic(url, ("\n".join(lines) + "\n").encode())
        else:
            storage.delete(url)


@dataclass(frozen=True)
class _Kept:
    """The kept clips: row i of each table is about the same one."""

    clips: pa.Table
    buckets: pa.Table
    captions: pa.Table
    texts: pa.Table
    latents: pa.Table


def _index(kept: _Kept) -> pa.Table:
    clips, latents = kept.clips, kept.latents
    height, width, frames = (kept.buckets[name].to_numpy() for name in ("height", "width", "frames"))
    columns = {
        "latent_id": latents["latent_id"],
        "clip_id": clips["clip_id"],
        "source": clips["source_id"],
        **{name: clips[name] for name in ("uri", "split", "kind", "licence")},
        "bucket": kept.buckets["bucket"],
        "file": latents["file"],
        **{part: latents[f"latent_{part}"] for part in ("row_group", "row", "offset", "length", "crc32")},
        "t": 1 + (frames - 1) // TEMPORAL_RATIO,
        "h": height // SPATIAL_RATIO,
        "w": width // SPATIAL_RATIO,
        "frames": kept.buckets["frames"],
        "fps": latents["fps"],
        "caption_ids": pairs(kept.captions["caption_id"], kept.captions["short_id"]),
        "text_lens": pairs(kept.texts["text_len"], kept.texts["short_len"]),
        **{name: latents[name] for name in ("first_mean", "first_std", "later_mean", "later_std")},
    }
    return pa.table(columns).cast(manifest.INDEX_SCHEMA)


def pairs(first: pa.ChunkedArray, second: pa.ChunkedArray) -> pa.ListArray:
    """Row by row the list of both values; where the second is null of the first alone."""
    there = np.stack([np.ones(len(first), bool), second.is_valid().to_numpy()], axis=1)
    places = np.arange(2 * len(first)).reshape(2, -1).T
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, _joined(first, second).take(places[there]).combine_chunks())


def _joined(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([*one.chunks, *other.chunks], one.type)


def _refuse_foreign(kept: _Kept, fps: float, vae: str, root: str) -> None:
    """UserError unless the files' own words about the latents are what the version will say of them."""
    expected: dict[str, Any] = {
        "vae_fingerprint": vae,
        **{name: kept.buckets[name] for name in ("width", "height", "frames")},
        "fps": fps,
        "latent_dtype": "bf16",
    }
    for name, value in expected.items():
        foreign = pc.invert(pc.equal(kept.latents[name], value).fill_null(False))
        if pc.any(foreign).as_py():
            number = pc.index(foreign, True).as_py()
            row = kept.latents.slice(number, 1).to_pylist()[0]
            wanted = value[number].as_py() if isinstance(value, pa.ChunkedArray) else value
            url = storage.join(root, row["file"])
            raise UserError(f"{url}: latent {row['latent_id']} has {name} {row[name]}, not {wanted}; it is not used")


def _text_index(captions: pa.Table, used: pa.ChunkedArray) -> pa.Table:
    """The places of the captions that are used and of the empty one."""
    rows = captions.filter(
        tables.within(captions["caption_id"], [caption_id(""), *used.unique().drop_null().to_pylist()])
    )
    places = {
        f"{name}_{part}": rows[f"{name}_{part}"]
        for name in ("tokens", "pooled")
        for part in ("offset", "length", "crc32")
    }
    columns = {
        **{name: rows[name] for name in ("caption_id", "caption", "file")},
        "row_group": rows["tokens_row_group"],
        "row": rows["tokens_row"],
        "text_len": rows["text_len"],
        **places,
    }
    return pa.table(columns).cast(manifest.TEXT_INDEX_SCHEMA).sort_by("caption_id")
