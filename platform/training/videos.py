"""Videos of the spec's prompts from a checkpoint's averaged weights, with what is measured on them. Knows no Ray.

    validation/step-00000100/prompt-0.mp4     one for each prompt
    validation/step-00000100/prompt-0.webp    some of its frames side by side
    validation/step-00000100/metrics.json     every measure, by prompt and by unit; written last

Shape letters: C channels, T frames or latents, H height, W width.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayramid.models import storage
from rayramid.models.brief import Brief, Frames, parse_size, write_brief
from rayramid.models.card import ModelCard
from rayramid.models.checkpoint import pyramid_of
from rayramid.models.dit.config import DiTConfig
from rayramid.models.media.preview import sprite_sheet
from rayramid.models.media.write import write_mp4
from rayramid.models.precision import sampling_dtype
from rayramid.models.render import Projector, request_of
from rayramid.models.sampler import Sampler
from rayramid.models.text import TextEmbedding, load_text
from rayramid.models.vae.io import load_vae
from rayramid.models.vae.model import CausalVAE
from rayramid.platform.evaluation.appearance import curves
from rayramid.platform.evaluation.latent_statistics import Reference, latent_curves
from rayramid.platform.evaluation.motion import motion
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.data import Datasets, index_of
from rayramid.platform.training.export import trained
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.metrics import finite
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.spec.seeing import Videos
from rayramid.platform.training.spec.train import TrainSpec

# Clips of the training data that sampled latents are compared with.
REFERENCE_CLIPS = 16
STRIP_FRAMES = 8

# What `metrics.json` says: `step`; `mean`, every measure over all prompts, by unit where it is a curve; `prompts`.
Report = dict[str, Any]


def folder_of(output: str, step: int) -> str:
    """Where the videos of a step are."""
    return storage.join(output, "validation", f"step-{step:08d}")


def read_report(output: str, step: int) -> Report | None:
    """What was measured on the videos of a step; None until all of them are made."""
    url = storage.join(folder_of(output, step), "metrics.json")
    return json.loads(storage.read_bytes(url)) if storage.exists(url) else None


def newest_report(output: str) -> Report | None:
    """What was measured on the newest videos that are all made."""
    reports = storage.list_files(storage.join(output, "validation"), "/metrics.json")
    newest = max(reports, default=None)
    return None if newest is None else json.loads(storage.read_bytes(newest))


def sample_videos(spec: TrainSpec, videos: Videos, device: torch.device) -> Report:
    """Makes the videos of the newest checkpoint, or finds them made.

    Args:
        spec: of the run, with all dataset versions fixed.
        videos: what to make.
        device: where.

    Raises:
        UserError: there is no checkpoint.
    """
    _, checkpoint = checkpoints.find(spec.output)
    if found := read_report(spec.output, checkpoint.step):
        return found
    name = storage.join(spec.output, "checkpoints", f"step-{checkpoint.step:08d}")
    card, dit, datasets = trained(spec, source=name)
    dtype = sampling_dtype(device)
    vae = load_vae(datasets.first.vae_url).to(device, dtype)
    reference = reference_of(spec.phases[-1], datasets, vae, dit.config)
    briefs = [brief_of(card, videos, number) for number in range(len(videos.prompts))]
    texts = load_text(datasets.first.text_url, device, dtype).encode(
        [card.negative_prompt, *(b.text_of(b.prompt) for b in briefs)]
    )
    sampler = Sampler(dit.to(device, dtype).eval(), pyramid_of(card))
    folder = folder_of(spec.output, checkpoint.step)
    made: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rayramid-videos-") as scratch:
        for number, (brief, text) in enumerate(zip(briefs, texts[1:], strict=True)):
            latents, frames = zip(*units_of(sampler, vae, brief, text, texts[0]), strict=True)
            file = f"prompt-{number}.mp4"
            write(Path(scratch, file), np.concatenate(frames), brief)
            measures = motion(frames) | curves(frames) | latent_curves(latents, reference)
            made.append({"prompt": brief.prompt, "seed": brief.seed, "video": file, "measures": measures})
        storage.sync_up(scratch, folder)
    report = {"step": checkpoint.step, "mean": mean_of([each["measures"] for each in made]), "prompts": made}
    storage.write_atomic(storage.join(folder, "metrics.json"), json.dumps(finite(report), indent=1).encode())
    return report


def brief_of(card: ModelCard, videos: Videos, number: int) -> Brief:
    """The video of a prompt; the same at every step."""
    return write_brief(
        card,
        videos.prompts[number],
        size=parse_size(videos.size) if videos.size else None,
        seconds=videos.seconds,
        seed=videos.seed + number,
    )


def units_of(
    sampler: Sampler, vae: CausalVAE, brief: Brief, text: TextEmbedding, negative: TextEmbedding
) -> Iterator[tuple[Tensor, Frames]]:
    """Normalised latents [C, t, H, W] and frames [T, H, W, 3] of each unit."""
    projector = Projector(vae, brief)
    for unit in sampler.generate(request_of(brief, {0: text}, negative)):
        yield unit.latent_CTHW, projector.frames(unit.latent_CTHW)


def reference_of(phase: Phase, datasets: Datasets, vae: CausalVAE, config: DiTConfig) -> Reference:
    """What the latents of some clips that a phase trains on are like, videos if it has any."""
    index = index_of(phase, datasets, measure_for(config), config.frames_per_unit)
    places = [(table.root, row) for table in index.videos or index.images for row in table.rows]
    spread = places[:: -(-len(places) // REFERENCE_CLIPS)]
    return Reference.of([vae.normalise(datasets.of(phase.data[root]).latent(row).float()) for root, row in spread])


def write(path: Path, frames_THWC: Frames, brief: Brief) -> None:
    """The video as an mp4, and beside it a strip of its frames."""
    write_mp4(path, frames_THWC, brief.fps, metadata={"comment": f"{brief.prompt} (seed {brief.seed})"})
    shown = np.linspace(0, len(frames_THWC) - 1, min(STRIP_FRAMES, len(frames_THWC))).round().astype(int)
    path.with_suffix(".webp").write_bytes(sprite_sheet(frames_THWC[shown], columns=len(shown)))


def mean_of(prompts: Sequence[Mapping[str, float | list[float] | None]]) -> dict[str, Any]:
    """The mean of every measure over the prompts that have it; of curves by unit, as far as all go."""
    means: dict[str, Any] = {}
    for name in prompts[0]:
        values = [measures[name] for measures in prompts if measures[name] is not None]
        curves_of = [value for value in values if isinstance(value, list)]
        if curves_of:
            means[name] = {str(unit): fmean(column) for unit, column in enumerate(zip(*curves_of, strict=False))}
        elif values:
            means[name] = fmean(value for value in values if isinstance(value, float))
    return means
