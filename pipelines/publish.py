"""From a curation to a version of the dataset: the index of what is kept, the statistics, the failures' view."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from rayramid.models import storage
from rayramid.pipelines import manifest
from rayramid.pipelines.buckets import SPATIAL_RATIO, Bucket
from rayramid.pipelines.curation import Curated, Curation, empty_text
from rayramid.pipelines.ledger import LedgerError
from rayramid.pipelines.outcomes import Outcome
from rayramid.pipelines.spec import JOBS, DataSpec


def publish(spec: DataSpec, curation: Curation, code: dict[str, str]) -> tuple[int | None, bool]:
    """Make a version of the kept clips; its number and whether it is new. None while there is nothing to train on."""
    kept = sorted((clip for clip in curation.clips if clip.fate == "kept"), key=_order)
    if not kept or empty_text(curation).row is None:
        return None, False
    assert curation.vae is not None
    assert curation.text is not None
    index = pa.Table.from_pylist([_index_row(clip) for clip in kept], schema=manifest.INDEX_SCHEMA)
    texts = _text_index(curation, kept)
    if len(set(index["latent_id"].to_pylist())) != len(kept):
        raise LedgerError("a latent would be in the version twice")
    facts = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code,
        "spec": spec.model_dump(mode="json"),
        "vae": asdict(curation.vae),
        "text": asdict(curation.text),
        "fps": spec.encode.fps,
        "clips": len(kept),
        "splits": dict(Counter(clip.clip["split"] for clip in kept)),
        "buckets": dict(sorted(Counter(_bucket(clip).name for clip in kept).items())),
        "statistics": statistics([_latent(clip).facts for clip in kept]),
        "files": sorted(set(index["file"].to_pylist()) | set(texts["file"].to_pylist())),
        "fates": {fate: curation.count(fate) for fate in ("kept", "rejected", "failed", "pending")},
        "removals": [],
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


def statistics(facts: Sequence[Any]) -> dict[str, float | None]:
    """Mean and standard deviation of raw latents over all clips: of first latents and of later ones apart."""
    found: dict[str, float | None] = {}
    for which in ("first", "later"):
        pairs = [(fact[f"{which}_mean"], fact[f"{which}_std"]) for fact in facts if fact[f"{which}_mean"] is not None]
        # Clips count alike, whatever their length: the law of total variance over clips.
        mean = sum(m for m, _ in pairs) / len(pairs) if pairs else None
        found[f"{which}_mean"] = mean
        found[f"{which}_std"] = (
            None if mean is None else math.sqrt(sum(s**2 + (m - mean) ** 2 for m, s in pairs) / len(pairs))
        )
    return found


def _order(clip: Curated) -> tuple[Bucket, str]:
    latent = _latent(clip)
    return _bucket(clip), latent.item_id


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
        "t": bucket.latents,
        "h": bucket.height // SPATIAL_RATIO,
        "w": bucket.width // SPATIAL_RATIO,
        "frames": bucket.frames,
        "fps": clip.latent.row["fps"],
        "caption_ids": [clip.caption.row["caption_id"]],
        "text_lens": [clip.text.outcome.facts["text_len"]],
    }


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
