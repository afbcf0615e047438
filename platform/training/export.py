"""From a checkpoint of the run to a folder that samples: the averaged weights with the VAE and the text encoders."""

from dataclasses import asdict

import torch

from rayramid.models import storage
from rayramid.models.card import VAE_STRIDE, ModelCard
from rayramid.models.checkpoint import save_model
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.vae.io import load_vae
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.data import Datasets, open_datasets
from rayramid.platform.training.model import configure
from rayramid.platform.training.spec import Phase, TrainSpec


def export(spec: TrainSpec, target: str | None = None) -> str:
    """Writes the inference folder from the newest checkpoint of `spec.output`; returns where it is.

    Args:
        spec: with all dataset versions fixed.
        target: `<output>/model` when None.

    Raises:
        UserError: there is no checkpoint.
    """
    folder = storage.join(spec.output, "checkpoints")
    checkpoint = checkpoints.latest(folder)
    if checkpoint is None:
        raise UserError(f"{folder}: no checkpoint to export")
    config, pyramid, _ = configure(spec.model)
    dit = DiT(config)
    average = {name: torch.empty_like(weight) for name, weight in dit.named_parameters()}
    checkpoints.load(folder, checkpoint, {"ema": average}, alone=True)
    dit.load_state_dict(average, strict=False)
    datasets = open_datasets(spec)
    width, height, frames, fps = default_video(spec.phases[-1], datasets)
    sampling = spec.sampling
    card = ModelCard(
        preset=spec.model.preset or "custom",
        dit=asdict(config),
        pyramid=asdict(pyramid),
        fps=fps,
        width=width,
        height=height,
        frames=frames,
        steps=((sampling.first_steps,) * config.levels, (sampling.later_steps,) * config.levels),
        guidance=sampling.guidance,
        video_guidance=sampling.video_guidance,
        prompt_suffix=sampling.prompt_suffix,
        negative_prompt=sampling.negative_prompt,
        latent_statistics=dict(datasets.first.manifest.get("statistics", {})),
        vae_fingerprint=datasets.first.vae_fingerprint,
        text_fingerprint=datasets.first.text_fingerprint,
        git_revision=checkpoint.git_revision,
        spec=spec.model_dump(mode="json"),
        dataset_version={dataset.root: dataset.version for dataset in datasets.all()},
        step=checkpoint.step,
    )
    url = target or storage.join(spec.output, "model")
    save_model(url, card, dit, load_vae(datasets.first.vae_url), datasets.first.text_url)
    return url


def default_video(phase: Phase, datasets: Datasets) -> tuple[int, int, int, float]:
    """Width, height, frames and frames per second of the largest, then longest, clips that a phase reads."""
    rows = [
        row
        for root in phase.data
        for row in datasets.of(root)
        .index.select(["bucket", "t", "h", "w", "fps"])
        .group_by(["bucket", "t", "h", "w", "fps"])
        .aggregate([])
        .to_pylist()
        if phase.buckets is None or row["bucket"] in phase.buckets
    ]
    largest = max(rows, key=lambda row: (row["h"] * row["w"], row["t"], row["fps"]))
    return (
        largest["w"] * VAE_STRIDE,
        largest["h"] * VAE_STRIDE,
        1 + (largest["t"] - 1) * VAE_STRIDE,
        float(largest["fps"]),
    )
