"""Which version of a model each name stands for: a log in the store, which operators write and every process reads.

    models/<name>/<n>.json    the n-th release of a name; created once, never changed; the newest one holds

A job keeps the version that it was accepted with, so a release takes no running video away; every version that ever was
released can still be found.
"""

import hashlib
import time
from pathlib import PurePosixPath
from typing import Literal

from rayramid.models import storage
from rayramid.models.adapter import adapter_digest, is_adapter
from rayramid.models.card import CARD, load_card
from rayramid.models.errors import UserError
from rayramid.serve.job import Model, Record
from rayramid.serve.spec import ServeSpec

BUCKETS = 2**32


class Version(Record):
    """A version of a model, and where it lies.

    Args:
        id: a digest of its card, and of its adapter if it has one.
        folder: of the model.
        adapter: folder of a LoRA that is merged into it.
    """

    id: str
    folder: str
    adapter: str | None = None

    @classmethod
    def at(cls, folder: str, adapter: str | None = None) -> "Version":
        """The version that lies in a model folder now, or that an adapter makes of it.

        Raises:
            UserError: no whole model is there, or the adapter does not fit it.
        """
        card, digest = load_card(folder), b""
        for part in ("vae", "text"):
            if not any(file.startswith(f"{part}/") for file in card.files):
                raise UserError(f"{folder}: holds a DiT without {part}/, so it can't make videos")
        if adapter is not None:
            # With torch, which gateways do without: they read what was released.
            from rayramid.models.lora import check_adapter

            check_adapter(adapter, card)
            digest = adapter_digest(adapter)
        return cls(id=Model.of(card, None, digest).version, folder=folder, adapter=adapter)


class Release(Record):
    """What a name stands for, from one moment on.

    Args:
        stable: answers.
        canary: answers for a share of the jobs.
        share: of the jobs, 0..1.
        at: Unix time.
        by: the endpoint's spec, or its operator.
    """

    stable: Version
    canary: Version | None = None
    share: float = 0.0
    at: int
    by: Literal["spec", "operator"]

    def choose(self, job_id: str) -> Version:
        """The version that makes a job: the same whoever asks, and however often."""
        bucket = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:4], "big")
        return self.canary if self.canary and bucket < self.share * BUCKETS else self.stable


class Releases:
    """The log of one store. `refresh`, and what writes, blocks."""

    def __init__(self, url: str) -> None:
        self._url = storage.join(url, "models")
        self._log: dict[str, dict[int, Release]] = {}

    def refresh(self) -> None:
        """Read what was released since the last time."""
        for url in list(storage.list_files(self._url, ".json")):
            path = PurePosixPath(url)
            releases, number = self._log.setdefault(path.parent.name, {}), int(path.stem)
            if number not in releases:
                releases[number] = Release.model_validate_json(storage.read_bytes(url))

    def names(self) -> list[str]:
        """All that anything was released under, as of the last refresh."""
        return sorted(self._log)

    def history(self, name: str) -> list[Release]:
        """Every release of a name, the newest first, as of the last refresh."""
        releases = self._log.get(name, {})
        return [releases[number] for number in sorted(releases, reverse=True)]

    def newest(self, name: str) -> Release:
        """What a name stands for; UserError for one that nothing was released under."""
        history = self.history(name)
        if not history:
            known = f"; there are {', '.join(self.names())}" if self._log else ""
            raise UserError(f"no model was released under the name {name!r}{known}; an endpoint's spec begins a name")
        return history[0]

    def stable_now(self, name: str) -> Version:
        """What a name stands for now, canaries apart; blocks."""
        self.refresh()
        return self.newest(name).stable

    def find(self, name: str, version: str) -> Version | None:
        """A version that was released under a name, where it was seen last."""
        found = (each for release in self.history(name) for each in (release.stable, release.canary))
        return next((each for each in found if each is not None and each.id == version), None)

    # -- releasing ----------------------------------------------------------------------------------------------------

    def follow_spec(self, name: str, version: Version) -> None:
        """Release what a spec names, unless it is what the spec named the last time: operators went on from that."""
        self.refresh()
        said = next((release.stable for release in self.history(name) if release.by == "spec"), None)
        if said != version:
            self._add(name, Release(stable=version, at=_now(), by="spec"))

    def promote(self, name: str, version: Version | None = None) -> Release:
        """Let a version make all new jobs: the canary if none is given.

        Raises:
            UserError: there is no canary.
        """
        self.refresh()
        chosen = version or self.newest(name).canary
        if chosen is None:
            raise UserError(f"{name} has no canary; name the folder to promote")
        return self._add(name, Release(stable=chosen, at=_now(), by="operator"))

    def canary(self, name: str, version: Version, share: float) -> Release:
        """Let a version make a share of the new jobs."""
        self.refresh()
        stable = self.newest(name).stable
        return self._add(name, Release(stable=stable, canary=version, share=share, at=_now(), by="operator"))

    def roll_back(self, name: str) -> Release:
        """End the canary; where there is none, go back to the version that was stable before.

        Raises:
            UserError: there was none.
        """
        self.refresh()
        newest = self.newest(name)
        earlier = (release.stable for release in self.history(name) if release.stable != newest.stable)
        stable = newest.stable if newest.canary else next(earlier, None)
        if stable is None:
            raise UserError(f"{name} has had no other version than {newest.stable.id}")
        return self._add(name, Release(stable=stable, at=_now(), by="operator"))

    def _add(self, name: str, release: Release) -> Release:
        releases = self._log.setdefault(name, {})
        number = max(releases, default=0) + 1
        url = storage.join(self._url, name, f"{number:06}.json")
        if not storage.create(url, release.model_dump_json().encode()):
            raise UserError(f"somebody else released {name} in this moment; look at it and release again")
        releases[number] = release
        return release


def versions_of(spec: ServeSpec) -> dict[str, Version]:
    """What a spec says that the names of its models stand for, the default one first; UserError if one is no model."""
    if spec.model is not None:
        return {spec.name or load_card(spec.model).preset: Version.at(spec.model)}
    return {name: Version.at(each.folder, each.lora) for name, each in spec.models.items()}


def candidate(url: str, stable: Version) -> Version:
    """The version at a URL: a model folder, or an adapter's, which goes over the base of the stable version.

    Raises:
        UserError: neither is there.
    """
    if is_adapter(url) and not storage.exists(storage.join(url, CARD)):
        return Version.at(stable.folder, url)
    return Version.at(url)


def _now() -> int:
    return int(time.time())
