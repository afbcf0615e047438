"""Where a video comes from: its model, the model's run and checkpoint, the datasets behind it, their clips.

Nothing is computed anew: each hop reads what the one before has written of itself, and says what is gone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rayramid.models import storage
from rayramid.models.card import CARD, ModelCard, load_card
from rayramid.models.errors import UserError
from rayramid.models.provenance import read_provenance
from rayramid.models.stores.shipped import SPRITES
from rayramid.models.vae.io import CONFIG
from rayramid.pipelines import manifest
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.serve.job import ID_PATTERN, Model
from rayramid.serve.store import Store

CLIP = ("clip_id", "source", "uri", "split", "licence")


@dataclass(frozen=True)
class Hop:
    """One thing on the way back from a video to its sources.

    Attributes:
        what: video, model, run, checkpoint, dataset or vae.
        place: where it is, or was; empty when that is not known.
        facts: what is known of it.
        missing: what of it is gone, and what that keeps from being known; empty when all is there.
        clips: of a dataset, if they were asked for.
    """

    what: str
    place: str
    facts: Mapping[str, Any]
    missing: str = ""
    clips: Sequence[Mapping[str, Any]] = field(default=())

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{self.what:<11} {self.place or 'unknown'}",
            *(f"  {name:<15} {value}" for name, value in self.facts.items() if value not in (None, "")),
            *([f"  {'missing':<15} {self.missing}"] if self.missing else []),
            *("  " + "  ".join(str(value) for value in clip.values() if value) for clip in self.clips),
        ]


def lineage(start: str, store: str | None = None, models: Sequence[str] = (), *, clips: bool = False) -> list[Hop]:
    """The hops from `start` on, in their order.

    Args:
        start: a video file, the id of a video in `store`, or a model folder; files and folders may be URLs.
        store: of the endpoint that made the video.
        models: folders or URLs below which the video's model is looked for, after the models that come with rayramid.
        clips: whether each dataset lists its clips.

    Raises:
        UserError: `start` is none of those, or says nothing of where it comes from.
    """
    if storage.exists(storage.join(start, CARD)):
        return list(_of_model(storage.absolute(start), clips))
    video = _job(start, store) if ID_PATTERN.fullmatch(start) else _file(start)
    folder = _folder_of(str(video.facts["model_version"]), models)
    if folder is None:
        looked = ", ".join(models) or "nowhere; name a place with --models"
        return [
            video,
            Hop("model", "", {}, f"no folder holds version {video.facts['model_version']} (looked: {looked})"),
        ]
    return [video, *_of_model(folder, clips)]


def _file(url: str) -> Hop:
    return Hop("video", storage.absolute(url), read_provenance(url))


def _job(video_id: str, store: str | None) -> Hop:
    if store is None:
        raise UserError(f"{video_id}: name the endpoint's store with --store, as its spec does")
    opened = Store(store)
    job = opened.job(video_id)
    if job is None:
        raise UserError(f"{video_id}: no such video in {store}")
    facts = {
        "id": job.id,
        "model": job.model,
        "model_version": job.model_version,
        "seed": job.brief.seed,
        "prompts": job.brief.prompts,
        "remixed_from": job.remixed_from,
        "extended_from": job.extended_from,
    }
    file = opened.at(video_id, "video.mp4")
    return Hop(
        "video", storage.absolute(file), facts, "" if storage.exists(file) else "the file was not made, or is gone"
    )


def _folder_of(version: str, places: Sequence[str]) -> str | None:
    """The first model folder whose card has this version."""
    listed = (url for place in places for url in storage.list_files(storage.absolute(place), f"/{CARD}"))
    for folder in (SPRITES, *(url.removesuffix(f"/{CARD}") for url in listed)):
        if Model.of(load_card(folder), None).version == version:
            return folder
    return None


def _of_model(folder: str, clips: bool) -> Iterator[Hop]:
    card = load_card(folder)
    facts = {
        "version": Model.of(card, None).version,
        "preset": card.preset,
        "step": card.step,
        "git_revision": card.git_revision,
    }
    lost = [name for name in card.files if not storage.exists(storage.join(folder, name))]
    yield Hop("model", folder, facts, f"weights: {', '.join(lost)}" if lost else "")
    if card.spec.get("kind") != "train":
        yield Hop("run", "", {}, "the card names no run: the weights were imported")
        return
    yield from _of_run(card)
    for root, version in card.dataset_version.items():
        yield from _of_dataset(root, version, card, clips)
    start = card.spec["model"].get("start")
    if start is not None and storage.exists(storage.join(start, CARD)):
        yield from _of_model(start, clips)
    elif start is not None:
        yield Hop("model", start, {}, "training started from it; there is no card there")


def _of_run(card: ModelCard) -> Iterator[Hop]:
    output = str(card.spec["output"])
    phases = [f"{phase['name']}: {phase['steps']} steps" for phase in card.spec["phases"]]
    there = any(storage.list_files(output))
    facts = {"seed": card.spec["seed"], "phases": "; ".join(phases)}
    yield Hop("run", output, facts, "" if there else "the folder is gone, or on another machine")
    marker = storage.join(output, "checkpoints", f"step-{card.step:08d}")
    kept = {each.step: each for each in checkpoints.committed(storage.join(output, "checkpoints"))}
    if card.step in kept:
        found = kept[card.step]
        yield Hop("checkpoint", marker, {"workers": found.workers, "git_revision": found.git_revision})
    else:
        steps = ", ".join(map(str, sorted(kept))) or "none"
        yield Hop("checkpoint", marker, {}, f"it is not kept; there are steps: {steps}")


def _of_dataset(root: str, version: int, card: ModelCard, clips: bool) -> Iterator[Hop]:
    try:
        found = manifest.read(root, version)
        index = manifest.read_index(root, found)
    except UserError as gone:
        yield Hop("dataset", root, {"version": version}, str(gone))
        return
    facts = {
        "version": version,
        "clips": found["clips"],
        "splits": ", ".join(f"{name} {count}" for name, count in found["splits"].items()),
        "sources": pc.count_distinct(index["source"]).as_py(),
        "licences": ", ".join(sorted(filter(None, pc.unique(index["licence"]).to_pylist()))),
    }
    lost = [name for name in found["files"] if not storage.exists(storage.join(root, name))]
    missing = f"{len(lost)} of {len(found['files'])} files, the first is {lost[0]}" if lost else ""
    yield Hop("dataset", root, facts, missing, _clips(index) if clips else ())
    yield _vae(root, found["vae"], card)


def _clips(index: pa.Table) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = index.select(CLIP).to_pylist()
    return listed


def _vae(root: str, vae: Mapping[str, str], card: ModelCard) -> Hop:
    url = vae["url"] if "://" in vae["url"] or vae["url"].startswith("/") else storage.join(root, vae["url"])
    missing = "" if storage.exists(storage.join(url, CONFIG)) else "the folder is gone; the model folder has a copy"
    if card.vae_fingerprint not in ("", vae["fingerprint"]):
        missing = f"the model was trained with the VAE {card.vae_fingerprint}"
    return Hop("vae", url, {"fingerprint": vae["fingerprint"]}, missing)
