"""From a curation to a version of the dataset: the index of what is kept, the statistics, the failures' view."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import manifest
from rayramid.pipelines.buckets import Bucket
from rayramid.pipelines.curation import Curated, Curation, empty_text
from rayramid.pipelines.ledger import LedgerError
from rayramid.pipelines.outcomes import Outcome
from rayramid.pipelines.removals import Removals
from rayramid.pipelines.spec import JOBS, DataSpec


def publish(spec: DataSpec, curation: Curation, removals: Removals, code: dict[str, str]) -> tuple[int | None, bool]:
    """Make a version of the kept clips; its number and whether it is new. None while there is nothing to train on.

    `removals` were left out of the curation before; the manifest only names them.
    """
    kept = [clip for clip in curation.clips if clip.fate == "kept"]
    if not kept or empty_text(curation).row is None:
        return None, False
    assert curation.vae is not None
    assert curation.text is not None
    for clip in kept:
        _refuse_foreign(clip, spec.encode.fps, curation.vae.fingerprint, spec.root)
    rows = [_index_row(clip) for clip in kept]
    index = manifest.sort_index(pa.Table.from_pylist(rows, schema=manifest.INDEX_SCHEMA))
    texts = _text_index(curation, kept)
    if len(set(index["latent_id"].to_pylist())) != len(kept):
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
    return manifest.publish(spec.root, facts, index, texts)


def write_failures(root: str, curation: Curation) -> None:
    """The view of all failures of the corpus at hand: `failed/<job>.jsonl`, one line each."""
    for job in JOBS:
        lines = [json.dumps(asdict(failure)) for failure in curation.jobs[job].failures]
        url = storage.join(root, "failed", f"{job}.jsonl")
        if lines:
            storage.write_atomic(url, ("\n".join(lines) + "\n").encode())
        else:
            storage.delete(url)


def _bucket(clip: Curated) -> Bucket:
    assert clip.verdict is not None
    assert clip.verdict.bucket is not None
    return clip.verdict.bucket


def _latent(clip: Curated) -> Outcome:
    assert clip.latent.outcome is not None
    return clip.latent.outcome


def _index_row(clip: Curated) -> dict[str, Any]:
    bucket, latent = _bucket(clip), _latent(clip)
    assert clip.latent.row is not None
    assert clip.caption.row is not None
    assert clip.text.outcome is not None
    return {
        "latent_id": clip.latent.row["latent_id"],
        "clip_id": clip.clip["clip_id"],
        "source": clip.clip["source_id"],
        "uri": clip.clip["uri"],
        "split": clip.clip["split"],
        "kind": clip.clip["kind"],
        "licence": clip.clip["licence"],
        "bucket": bucket.name,
        "file": latent.file,
        **latent.facts["latent"],
        **dict(zip("thw", bucket.grid, strict=True)),
        "frames": bucket.frames,
        "fps": clip.latent.row["fps"],
        "caption_ids": [clip.caption.row["caption_id"]],
        "text_lens": [clip.text.outcome.facts["text_len"]],
        **{name: latent.facts[name] for name in ("first_mean", "first_std", "later_mean", "later_std")},
    }


def _refuse_foreign(clip: Curated, fps: float, vae: str, root: str) -> None:
    """UserError unless the file's own words about a latent are what the version will say of it."""
    bucket, row = _bucket(clip), clip.latent.row
    assert row is not None
    expected = {
        "vae_fingerprint": vae,
        "width": bucket.width,
        "height": bucket.height,
        "frames": bucket.frames,
        "fps": fps,
        "latent_dtype": "bf16",
    }
    for name, value in expected.items():
        if row[name] != value:
            url = storage.join(root, _latent(clip).file)
            raise UserError(f"{url}: latent {row['latent_id']} has {name} {row[name]}, not {value}; it is not used")


def _text_index(curation: Curation, kept: Sequence[Curated]) -> pa.Table:
    results = {clip.text.row["caption_id"]: clip.text for clip in kept if clip.text.row is not None}
    empty = empty_text(curation)
    assert empty.row is not None
    results[empty.row["caption_id"]] = empty
    rows = []
    for caption_id, result in sorted(results.items()):
        assert result.outcome is not None
        assert result.row is not None
        facts = result.outcome.facts
        places = {
            f"{name}_{part}": facts[name][part]
            for name in ("tokens", "pooled")
            for part in ("offset", "length", "crc32")
        }
        rows.append(
            {
                "caption_id": caption_id,
                "caption": result.row["caption"],
                "file": result.outcome.file,
                "row_group": facts["tokens"]["row_group"],
                "row": facts["tokens"]["row"],
                "text_len": facts["text_len"],
                **places,
            }
        )
    return pa.Table.from_pylist(rows, schema=manifest.TEXT_INDEX_SCHEMA)
