"""The VAE of a run, from what the spec says."""

from collections.abc import Iterator
from dataclasses import asdict

import torch

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.vae.config import VAEConfig, preset
from rayramid.models.vae.io import CONFIG, load_vae, read_config, save_vae
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.pca import fit_pca
from rayramid.platform.training.draw import permutation
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.vae.clips import noted_clips, readable
from rayramid.platform.training.vae.feed import ClipReader, Frames
from rayramid.platform.training.vae.spec import Architecture, VAESpec

# The linear codec is fitted in memory, and to more clips it hardly changes.
PCA_CLIPS = 200
PCA_BYTES = 512 * 1024**2


def configure(model: Architecture) -> VAEConfig:
    """The configuration that a spec's `model` means.

    Raises:
        UserError: an unknown preset, no VAE at `start`, or fields that don't fit together.
    """
    if model.start is not None:
        return read_config(vae_folder(model.start))
    assert model.preset is not None, "the spec has one of the two"
    changes = model.model_dump(exclude={"preset", "start"}, exclude_none=True)
    try:
        return VAEConfig(**(asdict(preset(model.preset)) | changes))
    except UserError as wrong:
        raise UserError(f"model: {wrong}") from None


def vae_folder(start: str) -> str:
    """The VAE of a VAE folder, of a model folder, or of the output of a finished run."""
    inside = storage.join(start, "vae")
    return inside if storage.exists(storage.join(inside, CONFIG)) else start


def build(spec: VAESpec, ranks: Ranks) -> CausalVAE:
    """The VAE on the CPU, with the weights that the run starts from; the same on every rank. A collective."""
    if spec.model.start is not None:
        return load_vae(vae_folder(spec.model.start)).train()
    config = configure(spec.model)
    torch.manual_seed(spec.seed)
    if not config.patch_skip:
        return CausalVAE(config)
    fitted = storage.join(spec.output, "start")
    if ranks.is_first and not storage.exists(storage.join(fitted, CONFIG)):
        vae = CausalVAE(config)
        fit_pca(vae, _beginnings(spec))
        save_vae(fitted, vae)
    ranks.barrier()
    return load_vae(fitted).train()


def _beginnings(spec: VAESpec) -> Iterator[Frames]:
    """The beginnings of some clips of the first phase, not cropped."""
    phase = spec.phases[0]
    videos = readable(noted_clips(spec, phase), phase, "train").videos
    reader = ClipReader(spec.decode, skip=spec.damaged_clips == "skip")
    held = 0
    for row in permutation(len(videos), "pca", spec.seed)[:PCA_CLIPS]:
        frames = reader.whole(videos[row], phase, phase.frames)
        if frames is None:
            continue
        held += frames.nbytes
        if held > PCA_BYTES:
            break
        yield frames
    reader.close()
