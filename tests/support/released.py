"""A miniature miniFLUX release in the published layout: sharded pickles, a pickled VAE, text encoders."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from rayramid.models.dit.model import DiT
from rayramid.models.importers.dit import dit_to_published
from rayramid.models.importers.release import FLUX_TEXT
from rayramid.models.importers.vae import config_to, to_published
from rayramid.models.presets import PRESETS
from rayramid.models.tiny import write_tiny_text
from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.model import CausalVAE

STEM = "diffusion_pytorch_model"


def write_release(folder: Path) -> None:
    """The preset `tiny` as the variant 384p; all weights are drawn, none is zero."""
    torch.manual_seed(0)
    dit = DiT(replace(PRESETS["tiny"], conditioning="official"))
    torch.nn.init.normal_(dit.head.out.weight, std=0.1)
    config, weights = dit_to_published(dit)
    target = folder / "diffusion_transformer_384p"
    target.mkdir(parents=True)
    (target / "config.json").write_text(json.dumps(config))
    keys = sorted(weights)
    shards = {f"{STEM}-00001-of-00002.bin": keys[::2], f"{STEM}-00002-of-00002.bin": keys[1::2]}
    for name, part in shards.items():
        torch.save({key: weights[key] for key in part}, target / name)
    index = {"weight_map": {key: name for name, part in shards.items() for key in part}}
    (target / f"{STEM}.bin.index.json").write_text(json.dumps(index))
    vae = CausalVAE(VAEConfig(encoder_channels=(8,) * 4, decoder_channels=(8,) * 4, norm_groups=2))
    (folder / "causal_video_vae").mkdir()
    (folder / "causal_video_vae/config.json").write_text(json.dumps(config_to(vae.config)))
    torch.save(to_published(vae.state_dict()), folder / f"causal_video_vae/{STEM}.bin")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        write_tiny_text(Path(scratch))
        for ours, theirs in FLUX_TEXT.items():
            (Path(scratch) / ours).rename(folder / theirs)
