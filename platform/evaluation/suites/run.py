"""A prompt suite's videos on a Ray cluster. What is finished is never made again, so a stopped run goes on.

manifest.json   every setting, every video with its seed, and the commands that score them
full_info.json  VBench's prompts, if they were given in that form
videos/         the videos, by the benchmark's names, and nothing else
measures/       one JSON per video: how it changes from unit to unit; written before the video
results.json    drift over all videos, with what made them; written last
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayramid.models import storage
from rayramid.models.brief import Brief, Frames, parse_size, write_brief
from rayramid.models.card import ModelCard, load_card
from rayramid.models.checkpoint import check_files, load_model
from rayramid.models.cpu import compute_on_cpu
from rayramid.models.errors import UserError
from rayramid.models.media.write import write_mp4
from rayramid.models.precision import sampling_dtype
from rayramid.models.provenance import provenance
from rayramid.platform.evaluation import drift
from rayramid.platform.evaluation.pool import deal
from rayramid.platform.evaluation.record import record
from rayramid.platform.evaluation.suites.layouts import FULL_INFO, Wanted, read_prompts, scoring, wanted
from rayramid.platform.evaluation.suites.spec import SuiteSpec
from rayramid.platform.evaluation.videos import make_units
from rayramid.serve.job import Model as Release

RESULTS = "results.json"
MANIFEST = "manifest.json"
# What may differ between a run and the one that goes on from it: how much is wanted, and who makes it.
FREE = {"model", "output", "prompts", "dimensions", "first", "samples", "batch", "workers"}


class Maker:
    """Makes videos with a model that is loaded once."""

    def __init__(self, spec: SuiteSpec) -> None:
        compute_on_cpu(max(1, int(spec.workers.cpus)))
        self._spec = spec
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_model(spec.model, device, sampling_dtype(device))
        self._release = Release.of(self._model.card, None)

    def make(self, piece: Sequence[Wanted]) -> int:
        """Makes some videos together and measures them; how many."""
        briefs = [brief_of(self._spec, self._model.card, video) for video in piece]
        for video, brief, units in zip(piece, briefs, make_units(self._model, briefs), strict=True):
            measures = json.dumps(drift.measures_of(units), indent=1).encode()
            storage.write_atomic(_measures(self._spec.output, video), measures)
            self._write(video, brief, np.concatenate(units))
        return len(piece)

    def _write(self, video: Wanted, brief: Brief, frames_THWC: Frames) -> None:
        comment = provenance(
            model=self._release.name, model_version=self._release.version, seed=brief.seed, prompts=brief.prompts
        )
        with tempfile.TemporaryDirectory(prefix="rayramid-suite-") as scratch:
            file = Path(scratch, "video.mp4")
            write_mp4(file, frames_THWC, brief.fps, metadata={"comment": comment})
            storage.upload(file, storage.join(self._spec.output, "videos", video.file))


def brief_of(spec: SuiteSpec, card: ModelCard, video: Wanted) -> Brief:
    """What a video of the suite is to be."""
    return write_brief(
        card,
        video.prompt,
        size=None if spec.size is None else parse_size(spec.size),
        seconds=spec.seconds,
        seed=video.seed,
        steps=spec.steps,
        guidance=spec.guidance,
        video_guidance=spec.video_guidance,
        negative_prompt=spec.negative_prompt,
    )


def evaluate(spec: SuiteSpec, command: str, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Makes what is missing of the suite; the results, which are also written. Expects Ray to be initialised.

    Args:
        spec: the suite.
        command: what was typed, for the record.
        on_progress: called with videos that are there and in all.

    Raises:
        UserError: no whole model or no prompts there, or other videos in the output.
    """
    started = time.monotonic()
    storage.check_writable(spec.output)
    card = load_card(spec.model)
    check_files(spec.model, card)
    videos = wanted(spec)
    manifest = manifest_of(spec, card, videos)
    _refuse_others(spec.output, manifest)
    storage.write_atomic(storage.join(spec.output, MANIFEST), json.dumps(manifest, indent=1).encode() + b"\n")
    if spec.prompts.endswith(".json"):
        storage.write_atomic(storage.join(spec.output, FULL_INFO), storage.read_bytes(spec.prompts))
    left = missing(spec.output, videos)
    done = found = len(videos) - len(left)
    pieces = [left[first : first + spec.batch] for first in range(0, len(left), spec.batch)]
    for made in deal(Maker, spec, spec.workers, "make", pieces) if pieces else ():
        done += made
        if on_progress:
            on_progress(done, len(videos))
    measured = [json.loads(storage.read_bytes(_measures(spec.output, video))) for video in videos]
    results = {
        **record(spec, command, started),
        "model": manifest["settings"]["model"],
        "videos": len(videos),
        "found": found,
        "score": manifest["score"],
        "drift": drift.sum_up(measured),
    }
    storage.write_atomic(storage.join(spec.output, RESULTS), json.dumps(results, indent=1).encode() + b"\n")
    return results


def missing(output: str, videos: Sequence[Wanted]) -> list[Wanted]:
    """The videos that are not finished."""
    folder = storage.join(output, "videos")
    there = {storage.relative(folder, file) for file in storage.list_files(folder, ".mp4")}
    return [video for video in videos if video.file not in there]


def manifest_of(spec: SuiteSpec, card: ModelCard, videos: Sequence[Wanted]) -> dict[str, Any]:
    """`settings` that make a video what it is, `score`, what to type to score them, and all `videos`."""
    brief = brief_of(spec, card, videos[0])
    made_like = {
        name: value for name, value in asdict(brief).items() if name not in {"prompt", "seed", "later_prompts"}
    }
    prompts = read_prompts(spec.prompts)
    of = dict.fromkeys(dimension for prompt in prompts for dimension in prompt.dimensions)
    texts = "\n".join(prompt.text for prompt in prompts)
    return {
        "settings": {
            "spec": spec.model_dump(mode="json", exclude=FREE),
            "model": {
                "version": Release.of(card, None).version,
                "preset": card.preset,
                "step": card.step,
                "vae_fingerprint": card.vae_fingerprint,
                "text_fingerprint": card.text_fingerprint,
            },
            "suite": {"prompts_sha256": hashlib.sha256(texts.encode()).hexdigest()},
            "brief": json.loads(json.dumps(made_like)),
        },
        "score": scoring(spec, spec.dimensions or list(of)),
        "videos": [asdict(video) for video in videos],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The results for people."""
    return [
        f"{found['videos']} videos, {found['found']} of them from before",
        *drift.lines(found["drift"]),
        "to score them, in the benchmark's own environment:",
        *(f"  {command}" for command in found["score"]),
    ]


def _measures(output: str, video: Wanted) -> str:
    return storage.join(output, "measures", f"{video.number:04d}-{video.sample}.json")


def _refuse_others(output: str, manifest: Mapping[str, Any]) -> None:
    """Videos of two settings must not stand side by side."""
    url = storage.join(output, MANIFEST)
    if not storage.exists(url):
        return
    before, now = json.loads(storage.read_bytes(url))["settings"], manifest["settings"]
    for part in now:
        for name, value in now[part].items():
            if before[part].get(name) != value:
                raise UserError(
                    f"{output}: the videos here were made with {name} {before[part].get(name)!r}, not {value!r};"
                    " name another output"
                )
