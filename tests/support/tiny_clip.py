"""A CLIP of a few thousand seeded weights, in a folder as open_clip publishes them."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file


def write_tiny_clip(folder: Path) -> Path:
    """Pictures of 32 pixels, texts of 16 tokens, embeddings of 32 values; returns the folder."""
    model = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = open_clip.model.CLIP(**model).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "open_clip_model.safetensors")
    return folder
