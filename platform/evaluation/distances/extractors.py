"""Networks that turn videos into features, each by the name that results call it.

Shape letters: N videos, T frames, H W pixels, C = 3 (RGB), M items (videos or frames), D features.
"""

import hashlib
import importlib
import tempfile
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.random_features import NAME, SEED, RandomFeatures
from rayramid.pipelines.identity import digest
from rayramid.platform.evaluation.distances.spec import Features

# Videos [N, T, H, W, C] of uint8, on the CPU, to features [M, D].
Extractor = Callable[[Tensor], Tensor]


def load_extractors(features: Features, device: str) -> dict[str, Extractor]:
    """The networks that a spec names.

    Raises:
        UserError: a file is missing or no such network.
    """
    found: dict[str, Extractor] = {}
    if features.random3d:
        found[NAME] = random3d(device)
    if features.i3d is not None:
        found["i3d"] = i3d(features.i3d, device)
    if features.open_clip is not None:
        found["open_clip"] = open_clip(features.open_clip)
    if features.function is not None:
        found[features.function] = function(features.function)
    return found


def fingerprints(features: Features) -> dict[str, str]:
    """Of the networks that a spec names, by their names: what changes when a network's files do.

    A function is told by the file of its module, and not by what that imports.
    """
    found: dict[str, str] = {}
    if features.random3d:
        found[NAME] = digest(NAME, SEED)
    if features.i3d is not None:
        found["i3d"] = digest("i3d", *astuple(storage.stat(features.i3d)))
    if features.open_clip is not None:
        files = sorted(
            (storage.relative(features.open_clip, url), *astuple(stat))
            for url, stat in storage.list_stats(features.open_clip)
        )
        found["open_clip"] = digest("open_clip", files)
    if features.function is not None:
        file = importlib.import_module(features.function.partition(":")[0]).__file__
        assert file is not None, "what has no file has no function in it"
        found[features.function] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found


def random3d(device: str) -> Extractor:
    """The network of fixed random weights, an item per video."""
    network = RandomFeatures().to(device)
    return lambda videos_NTHWC: network(videos_NTHWC.to(device))


def i3d(url: str, device: str) -> Extractor:
    """The Kinetics-400 I3D that StyleGAN-V published as TorchScript (`i3d_torchscript.pt`), an item per video.

    The file is called as they call it: fp32 [N, C, T, H, W] of 0 to 255 with `rescale`, `resize` and `return_features`,
    so it brings values to -1..1 and frames to 224x224 by itself, and gives the 400 values before the softmax.
    """
    with tempfile.TemporaryDirectory(prefix="rayramid-") as folder:
        path = storage.local_path(url)
        if path is None:
            path = Path(folder, "i3d.pt")
            storage.download(url, path)
        if not path.is_file():
            raise UserError(f"{url}: no such file; features.i3d is an i3d_torchscript.pt")
        try:
            network = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise UserError(f"{url}: not a TorchScript file ({str(error).splitlines()[0]})") from None

    def extract(videos_NTHWC: Tensor) -> Tensor:
        videos_NCTHW = videos_NTHWC.to(device).permute(0, 4, 1, 2, 3).float()
        features: Tensor = network(videos_NCTHW, rescale=True, resize=True, return_features=True)
        return features

    return extract


def open_clip(folder: str) -> Extractor:
    """An open_clip model's image tower: unit embeddings, an item per frame."""
    from rayramid.pipelines.scoring.clip import Clip

    clip = Clip(folder)
    return lambda videos_NTHWC: torch.from_numpy(
        np.concatenate([clip.embed_each(video_THWC) for video_THWC in videos_NTHWC.numpy()])
    )


def function(name: str) -> Extractor:
    """What the user's `module:function` gives; the module must be importable where Ray runs."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"features.function: {name} can't be loaded: {error}") from error

    def extract(videos_NTHWC: Tensor) -> Tensor:
        features = torch.as_tensor(found(videos_NTHWC))
        if features.ndim != 2:
            raise UserError(f"features.function: {name} gave the shape {tuple(features.shape)}, not [items, features]")
        return features

    return extract
