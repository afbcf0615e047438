"""The end of a run: the averaged weights with their latents' statistics, as a VAE folder."""

import json
import logging
from typing import Any

import torch

from rayramid.models import storage
from rayramid.models.checkpoint import git_revision
from rayramid.models.vae.io import CONFIG, fingerprint, save_vae
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.statistics import LatentStatistics
from rayramid.models.vae.streaming import encode_video
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.vae.clips import noted_clips, readable
from rayramid.platform.training.vae.feed import ClipReader
from rayramid.platform.training.vae.spec import VAESpec
from rayramid.platform.training.vae.validation import centre

log = logging.getLogger(__name__)

CARD = "training.json"


def exported(spec: VAESpec) -> str | None:
    """The VAE folder of a finished run; None before."""
    folder = folder_of(spec)
    return folder if storage.exists(storage.join(folder, CONFIG)) else None


def folder_of(spec: VAESpec) -> str:
    """Where the VAE of a run goes."""
    return storage.join(spec.output, "vae")


def export(spec: VAESpec, vae: CausalVAE, step: int, quality: dict[str, Any], ranks: Ranks) -> None:
    """Measures the latents of training clips and writes the VAE. A collective.

    Args:
        spec: the run.
        vae: holds the averaged weights.
        step: optimiser steps done.
        quality: the last validation.
        ranks: each encodes its part of the clips.
    """
    statistics, damaged = measure_latents(spec, vae, ranks)
    vae.config = statistics.written_to(vae.config)
    if not ranks.is_first:
        return
    card = {
        "format_version": 1,
        "step": step,
        "fingerprint": fingerprint(vae),
        "git_revision": git_revision(),
        "quality": quality,
        "damaged_files": damaged,
        "spec": spec.model_dump(mode="json"),
    }
    folder = folder_of(spec)
    storage.write_atomic(storage.join(folder, CARD), json.dumps(card, indent=1).encode())
    save_vae(folder, vae)
    log.info("VAE exported", extra={"folder": folder, "fingerprint": card["fingerprint"]})


@torch.no_grad()
def measure_latents(spec: VAESpec, vae: CausalVAE, ranks: Ranks) -> tuple[LatentStatistics, list[str]]:
    """Of the last phase's clips and images, each as long as in training and cut to the middle; and damaged files.

    A collective.
    """
    phase = spec.phases[-1]
    found = readable(noted_clips(spec, phase), phase, "train")
    rows = [*found.videos[: spec.statistics.clips], *found.images[: spec.statistics.clips]]
    reader = ClipReader(spec.decode, skip=spec.damaged_clips == "skip")
    mine = LatentStatistics()
    for row in rows[ranks.rank :: ranks.world]:
        clip = reader.whole(row, phase, phase.frames if row["kind"] == "video" else 1)
        if clip is None:
            continue
        mine += LatentStatistics.of([encode_video(vae, [centre(clip, phase)])])
    reader.close()
    gathered = ranks.gather((mine, reader.left_out))
    damaged = set[str]().union(*(files for _, files in gathered))
    return sum((part for part, _ in gathered), start=LatentStatistics()), sorted(damaged)
