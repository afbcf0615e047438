"""One clip's story: where it came from, every score, why it is in or out, which versions and models hold it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import curate, manifest, tables
from rayramid.pipelines.curation import Curation
from rayramid.pipelines.removals import read_removals
from rayramid.pipelines.spec import DataSpec


@dataclass(frozen=True)
class Explanation:
    """What is known of a clip.

    Attributes:
        clip: its id, source, range, size, codec, licence and split.
        scores: by name, those that it has, each with its bounds.
        fate: kept, rejected, failed, pending or removed.
        reason: why, where it is not kept.
        caption: its text, None while there is none.
        bucket: that it goes to.
        latent: file and byte range of its latent, None while there is none.
        versions: of the dataset that hold it.
        models: folders of models that were trained on such a version.
    """

    clip: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, float | None]]
    fate: str
    reason: str | None
    caption: str | None
    bucket: str | None
    latent: str | None
    versions: tuple[int, ...]
    models: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        about = {
            **self.clip,
            "fate": self.fate + (f": {self.reason}" if self.reason else ""),
            "bucket": self.bucket,
            "caption": self.caption,
            "latent": self.latent,
            "versions": ", ".join(f"v{number}" for number in self.versions) or "none",
            "models": ", ".join(self.models) or "none known",
        }
        scores = [
            f"  {name:<12} {score['value']:>10.4g}"
            + (f"  >= {score['min']:.4g}" if score["min"] is not None else "")
            + (f"  <= {score['max']:.4g}" if score["max"] is not None else "")
            for name, score in self.scores.items()
        ]
        return [*(f"{name:<10} {value}" for name, value in about.items() if value is not None), "scores", *scores]


def explain(root: str, clip_id: str, models: str | None = None) -> Explanation:
    """A clip by its id or the beginning of it, judged by the spec of the latest version; nothing is decoded.

    Args:
        root: of the dataset.
        clip_id: as reports and indexes have it.
        models: a folder or URL below which models are looked for.

    Raises:
        UserError: no version yet, no such clip, more than one.
    """
    spec = DataSpec.model_validate({**manifest.read(root)["spec"], "root": root})
    removed = _removed(root, clip_id)
    curation = curate.survey(spec)
    number = _number(curation.clips, clip_id, removed)
    if number is None:
        versions = _versions(root, clip_id)
        return Explanation(
            {"clip_id": clip_id},
            {},
            "removed",
            removed,
            None,
            None,
            None,
            tuple(versions),
            _models(root, versions, models),
        )
    clip, measures, judged, latent, captioned = (
        table.slice(number, 1).to_pylist()[0]
        for table in (
            curation.clips,
            curation.measures,
            curation.verdicts,
            curation.results["encode"],
            curation.results["caption"],
        )
    )
    versions = _versions(root, clip["clip_id"])
    caption = tables.found(pa.chunked_array([[captioned["caption_id"]]], pa.string()), curation.captions, "caption_id")
    fate = curation.fates[number].as_py()
    return Explanation(
        clip={
            name: clip[name]
            for name in (
                *("clip_id", "source_id", "uri", "kind", "start_ms", "end_ms"),
                *("width", "height", "fps", "codec", "licence", "split"),
            )
        },
        scores={
            name: {"value": value, "min": curation.bounds[name].min, "max": curation.bounds[name].max}
            for name, value in measures.items()
            if value is not None
        },
        fate=fate,
        reason=_reason(spec, curation, number, fate, clip["clip_id"]),
        caption=caption["caption"][0].as_py(),
        bucket=judged["bucket"],
        latent=f"{latent['file']} bytes {latent['latent_offset']}+{latent['latent_length']}" if latent["ok"] else None,
        versions=tuple(versions),
        models=_models(root, versions, models),
    )


def _number(clips: pa.Table, clip_id: str, removed: str | None) -> int | None:
    found = pc.indices_nonzero(pc.starts_with(clips["clip_id"], clip_id)).to_pylist()
    if len(found) > 1:
        raise UserError(f"{clip_id}: {len(found)} clips begin so; give more of the id")
    if not found and removed is None:
        raise UserError(f"{clip_id}: no such clip among those of the latest version's spec")
    return found[0] if found else None


def _removed(root: str, clip_id: str) -> str | None:
    """When and why this clip was taken out by its id."""
    for removal in read_removals(root).all:
        if any(name.startswith(clip_id) for name in removal.clips):
            return f"{removal.created}" + (f", {removal.reason}" if removal.reason else "")
    return None


def _reason(spec: DataSpec, curation: Curation, number: int, fate: str, clip_id: str) -> str | None:
    if fate == "rejected":
        return curation.reason(number, spec.encode)
    if fate == "failed":
        own = [
            f"{job}: {failure.error}: {failure.message}"
            for job, failures in curation.failures.items()
            for failure in failures
            if failure.input == curation.clips["uri"][number].as_py()
        ]
        return own[0] if own else None
    return None


def _versions(root: str, clip_id: str) -> list[int]:
    held = []
    for version in manifest.read_all(root):
        ids = manifest.read_index(root, version)["clip_id"]
        if pc.any(pc.starts_with(ids, clip_id)).as_py():
            held.append(int(version["version"]))
    return held


def _models(root: str, versions: list[int], place: str | None) -> tuple[str, ...]:
    """Folders of models whose card names this root with one of these versions."""
    if place is None:
        return ()
    found = []
    for url in storage.list_files(place, "/rayramid.json"):
        trained_on = json.loads(storage.read_bytes(url)).get("dataset_version", {})
        if any(storage.absolute(known) == root and version in versions for known, version in trained_on.items()):
            found.append(url.rpartition("/")[0])
    return tuple(found)
