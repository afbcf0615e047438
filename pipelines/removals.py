"""Opt-out: sources and clips that no new version holds, whatever the specs say. A record is never changed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rayramid.models import storage
from rayramid.pipelines.identity import digest


@dataclass(frozen=True)
class Removal:
    """One request.

    Attributes:
        sources: URIs of sources, so that a file stays out when it is replaced by another version of itself.
        clips: ids of clips, which name a range of one version of a source.
        reason: for the record.
        created: when, in ISO 8601.
    """

    sources: tuple[str, ...]
    clips: tuple[str, ...]
    reason: str
    created: str


@dataclass(frozen=True)
class Removals:
    """All requests so far."""

    all: tuple[Removal, ...] = ()

    @property
    def sources(self) -> frozenset[str]:
        """URIs that are out."""
        return frozenset(uri for removal in self.all for uri in removal.sources)

    @property
    def clips(self) -> frozenset[str]:
        """Ids of clips that are out."""
        return frozenset(clip_id for removal in self.all for clip_id in removal.clips)

    def records(self) -> list[dict[str, Any]]:
        """As a manifest holds them."""
        return [asdict(removal) for removal in self.all]


def record(root: str, sources: Iterable[str], clips: Iterable[str], reason: str) -> None:
    """Write down a request; the same request made twice is one."""
    removal = Removal(
        tuple(sorted(set(sources))), tuple(sorted(set(clips))), reason, datetime.now(UTC).isoformat(timespec="seconds")
    )
    name = digest("removal", removal.sources, removal.clips, reason)
    storage.create(storage.join(root, "_removals", f"{name}.json"), json.dumps(asdict(removal)).encode())


def read_removals(root: str) -> Removals:
    """Every request under a root, the oldest first."""
    found: Sequence[dict[str, Any]] = [
        json.loads(storage.read_bytes(url)) for url in storage.list_files(storage.join(root, "_removals"), ".json")
    ]
    removals = [
        Removal(tuple(entry["sources"]), tuple(entry["clips"]), entry["reason"], entry["created"]) for entry in found
    ]
    return Removals(tuple(sorted(removals, key=lambda removal: (removal.created, removal.sources, removal.clips))))
