"""New versions from old ones, without a spec and without Ray: clips taken out, versions merged."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rayramid.models.errors import UserError
from rayramid.pipelines import manifest, plan, removals, tables
from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.job import Row
from rayramid.pipelines.outcomes import outcomes_of
from rayramid.pipelines.removals import read_removals

# What two versions must share to become one.
SHARED = {"VAE": ("vae", "fingerprint"), "text encoder": ("text", "fingerprint"), "fps": ("fps",)}


def remove(root: str, sources: Collection[str] = (), clips: Collection[str] = (), reason: str = "") -> tuple[int, bool]:
    """Take clips and whole sources out, for good; older versions stay as they are.

    Args:
        root: of the dataset.
        sources: by URI, or by source_id.
        clips: by clip_id.
        reason: for the record.

    Returns:
        The newest version's number and whether it is new.

    Raises:
        UserError: nothing was ever planned here by one of these names, or there is no version yet.
    """
    uris, known = _uris(root, set(sources)), _cut(root, set(clips))
    unknown = [name for name in sources if name not in uris] + [name for name in clips if name not in known]
    if unknown:
        raise UserError(f"{root}: no source or clip {unknown[0]!r} was ever planned here; nothing is removed")
    old = manifest.read(root)
    removals.record(root, (uris[name] for name in sources), clips, reason)
    return _publish(root, old, manifest.read_index(root, old), manifest.read_text_index(root, old), {})


def merge(root: str, versions: Sequence[int]) -> tuple[int, bool]:
    """Make a version with the latents of several; where two hold the same one, its captions are joined.

    Raises:
        UserError: fewer than two versions, one that does not exist, or different VAEs, text encoders or frame rates.
    """
    if len(set(versions)) < 2:
        raise UserError(f"{root}: merging takes two or more versions, as in `rayramid data merge {root} 1 2`")
    old = [manifest.read(root, version) for version in versions]
    for what, path in SHARED.items():
        found = {manifest_["version"]: _at(manifest_, path) for manifest_ in old}
        if len(set(found.values())) > 1:
            named = ", ".join(f"version {version} has {value}" for version, value in found.items())
            raise UserError(f"{root}: versions of different {what} can't be merged: {named}")
    texts = pa.concat_tables([manifest.read_text_index(root, each) for each in reversed(old)])
    return _publish(
        root,
        max(old, key=lambda each: each["version"]),
        _joined([manifest.read_index(root, each) for each in old]),
        tables.distinct(texts, "caption_id").sort_by("caption_id"),
        {"merged": list(versions)},
    )


def _joined(indexes: Sequence[pa.Table]) -> pa.Table:
    """Each latent once, as the last of the indexes that have it says, with the captions of all."""
    rows = pa.concat_tables(indexes)
    last = tables.distinct(pa.concat_tables(reversed(indexes)), "latent_id")
    captions = pc.binary_join(rows["caption_ids"], " ")
    kept = pc.binary_join(tables.found(rows["latent_id"], last, "latent_id")["caption_ids"], " ")
    several = rows["latent_id"].filter(pc.not_equal(captions, kept))
    joined: dict[str, Row] = {}
    for row in tables.rows_of(rows.filter(tables.within(rows["latent_id"], several))):
        before = joined.get(row["latent_id"], row)
        lengths = dict(zip(before["caption_ids"], before["text_lens"], strict=True))
        lengths |= dict(zip(row["caption_ids"], row["text_lens"], strict=True))
        joined[row["latent_id"]] = {**row, "caption_ids": list(lengths), "text_lens": list(lengths.values())}
    changed = pa.Table.from_pylist(list(joined.values()), schema=manifest.INDEX_SCHEMA)
    return pa.concat_tables([tables.without(last, "latent_id", several), changed])


def _publish(
    root: str, old: Mapping[str, Any], index: pa.Table, texts: pa.Table, more: Mapping[str, Any]
) -> tuple[int, bool]:
    """A version of what is left of the tables, with the old one's facts as far as they still hold."""
    taken_out = read_removals(root)
    index = tables.without(tables.without(index, "uri", sorted(taken_out.sources)), "clip_id", sorted(taken_out.clips))
    index = manifest.sort_index(index)
    used = {caption_id(""), *(name for names in index["caption_ids"].to_pylist() for name in names)}
    texts = texts.filter(pc.is_in(texts["caption_id"], value_set=pa.array(sorted(used)))).combine_chunks()
    facts = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: old[name] for name in ("code", "spec", "vae", "text")},
        "fates": {**old["fates"], "kept": index.num_rows},
        "removals": taken_out.records(),
        **more,
    }
    return manifest.publish(root, facts, index, texts)


def _uris(root: str, names: Collection[str]) -> dict[str, str]:
    """The URIs of sources that were ever planned, among those with these names: a URI or a source_id."""
    rows = (item.row for item in plan.planned_items(root, "shots")) if names else iter(())
    return {name: row["uri"] for row in rows for name in (row["uri"], row["source_id"]) if name in names}


def _cut(root: str, clips: Collection[str]) -> set[str]:
    """Those of these clips that were ever cut."""
    if not clips:
        return set()
    clip_ids = pa.schema([("clip_id", pa.string())])
    rows = outcomes_of(root, "shots", plan.read_plans(root, "shots"), columns=clip_ids).rows
    return set(rows["clip_id"].filter(tables.within(rows["clip_id"], list(clips))).to_pylist())


def _at(found: Mapping[str, Any], path: Sequence[str]) -> Any:
    for name in path:
        found = found[name]
    return found
