"""From a checkpoint of the run to a folder that samples: the weights with the VAE and the text encoders."""

import tempfile
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rayramid.models import storage
from rayramid.models.card import VAE_STRIDE, ModelCard
from rayramid.models.checkpoint import save_model
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.importers.release import preset_of
from rayramid.models.lora import save_adapter
from rayramid.models.text import cast_text
from rayramid.models.vae.io import load_vae
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.checkpoint import Checkpoint
from rayramid.platform.training.data import Datasets, open_datasets
from rayramid.platform.training.lora import adapt
from rayramid.platform.training.model import build, configure
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.spec.model import Sampling
from rayramid.platform.training.spec.train import TrainSpec

# Of every stage, where neither spec nor a model to start from says: the published ones.
FIRST_STEPS, LATER_STEPS = 20, 10

Weights = Literal["ema", "raw"]


def export_checkpoint(
    source: str, target: str, weights: Weights = "ema", dtype: torch.dtype | None = None
) -> Checkpoint:
    """Exports a run's newest checkpoint or a named one by what its marker says of the run; returns what it says.

    `dtype` is that of all stored weights; None stores them as they are.

    Raises:
        UserError: there is no such checkpoint, or it is not of a DiT.
    """
    _, checkpoint = checkpoints.find(source)
    if checkpoint.spec["kind"] != "train":
        raise UserError(f"{source}: holds a run of kind '{checkpoint.spec['kind']}', which is exported at its end")
    export(TrainSpec.model_validate(checkpoint.spec), target, weights, source, dtype)
    return checkpoint


def export_adapter(source: str, target: str, weights: Weights = "ema") -> Checkpoint:
    """Exports the adapter alone of a run with `lora`, as peft writes one, to be served or merged over its base.

    Raises:
        UserError: there is no such checkpoint, or it has no adapter.
    """
    folder, checkpoint = checkpoints.find(source)
    spec = TrainSpec.model_validate(checkpoint.spec) if checkpoint.spec["kind"] == "train" else None
    if spec is None or spec.lora is None:
        raise UserError(f"{source}: the run trained no adapter; leave --adapter out to export the whole model")
    dit = DiT(configure(spec.model)[0])
    adapt(dit, spec.lora)
    tensors = _read(dit, weights, folder, checkpoint)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": spec.model.start,
        "r": spec.lora.rank,
        "lora_alpha": spec.lora.alpha,
        "target_modules": sorted({name.partition(".lora_")[0] for name in tensors}),
        "bias": "none",
    }
    # "default" is what peft calls an adapter without a name.
    save_adapter(target, {name.replace(".default.", "."): each for name, each in tensors.items()}, config)
    return checkpoint


def export(
    spec: TrainSpec,
    target: str | None = None,
    weights: Weights = "ema",
    source: str | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Writes the inference folder; returns where it is.

    Args:
        spec: with all dataset versions fixed.
        target: `<output>/model` when None.
        weights: as for `trained`.
        source: as for `trained`.
        dtype: as for `export_checkpoint`.

    Raises:
        UserError: there is no checkpoint.
    """
    card, dit, datasets = trained(spec, weights, source)
    url = target or storage.join(spec.output, "model")
    vae, text_url = load_vae(datasets.first.vae_url), datasets.first.text_url
    if dtype is None:
        save_model(url, card, dit, vae, text_url)
        return url
    # Other weights have other fingerprints.
    card = replace(card, vae_fingerprint="", text_fingerprint="")
    with tempfile.TemporaryDirectory(prefix="rayramid-export-") as folder:
        cast_text(text_url, folder, dtype)
        save_model(url, card, dit.to(dtype), vae.to(dtype), folder)
    return url


def trained(spec: TrainSpec, weights: Weights = "ema", source: str | None = None) -> tuple[ModelCard, DiT, Datasets]:
    """The card and the transformer of a checkpoint, on the CPU; its VAE and text encoders are those of the datasets.

    Args:
        spec: with all dataset versions fixed.
        weights: the average, or the weights as they are trained.
        source: as `checkpoint.find` takes it; the newest checkpoint of `spec.output` when None.

    Raises:
        UserError: there is no checkpoint.
    """
    folder, checkpoint = checkpoints.find(source or spec.output)
    config, pyramid, started = configure(spec.model)
    dit = DiT(config) if spec.lora is None else build(spec.model, spec.seed, torch.float32)[0]
    adapters = None if spec.lora is None else adapt(dit, spec.lora)
    dit.load_state_dict(_read(dit, weights, folder, checkpoint), strict=False)
    if adapters is not None:
        adapters.merge_and_unload()
    datasets = open_datasets(spec)
    width, height, frames, fps = default_video(spec.phases[-1], datasets)
    card = ModelCard(
        preset=preset_of(config),
        dit=asdict(config),
        pyramid=asdict(pyramid),
        fps=fps,
        width=width,
        height=height,
        frames=frames,
        **recommended(spec.sampling, started, config.levels),
        latent_statistics=dict(datasets.first.manifest.get("statistics", {})),
        vae_fingerprint=datasets.first.vae_fingerprint,
        text_fingerprint=datasets.first.text_fingerprint,
        git_revision=checkpoint.git_revision,
        spec=spec.model_dump(mode="json"),
        dataset_version={dataset.root: dataset.version for dataset in datasets.all()},
        step=checkpoint.step,
    )
    return card, dit, datasets


def _read(dit: DiT, weights: Weights, folder: str, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """What a checkpoint holds of the parameters that train."""
    part = {"ema": "ema", "raw": "model"}[weights]
    tensors = {name: torch.empty_like(weight) for name, weight in dit.named_parameters() if weight.requires_grad}
    checkpoints.load(folder, checkpoint, {part: tensors}, alone=True)
    return tensors


def recommended(sampling: Sampling, started: ModelCard | None, levels: int) -> dict[str, Any]:
    """The card's fields that `sampling` speaks of, the rest as in the card of the model that training started from.

    Raises:
        UserError: steps that are not one for each stage.
    """
    names = ("guidance", "video_guidance", "prompt_suffix", "negative_prompt")
    fields = {name: getattr(started, name) for name in names} if started else {}
    fields |= {name: value for name in names if (value := getattr(sampling, name)) is not None}
    kept = started.steps if started and started.levels == levels else ((FIRST_STEPS,) * levels, (LATER_STEPS,) * levels)
    wanted = {"first_steps": sampling.first_steps, "later_steps": sampling.later_steps}
    steps = zip(wanted.items(), kept, strict=True)
    return fields | {"steps": tuple(before if n is None else _by_stage(name, n, levels) for (name, n), before in steps)}


def _by_stage(name: str, steps: int | tuple[int, ...], levels: int) -> tuple[int, ...]:
    if isinstance(steps, int):
        return (steps,) * levels
    if len(steps) != levels:
        raise UserError(f"sampling has {len(steps)} {name} and the model {levels} stages; give one number or {levels}")
    return steps


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
