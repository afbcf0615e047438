"""What an open_clip model says: an embedding of the clip, how well a text fits it, and the LAION aesthetic score.

Shape letters: T frames, H W pixels, C = 3 (RGB), N texts, D embedding.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines.frames import Frames

Vector = NDArray[np.float32]


class Clip:
    """An open_clip model from a folder with `open_clip_config.json` and `open_clip_model.safetensors`."""

    def __init__(self, folder: str) -> None:
        with tempfile.TemporaryDirectory(prefix="rayramid-") as copy:
            local = storage.local_path(folder)
            if local is None:
                local = Path(copy)
                storage.sync_down(folder, local)
            if not (local / "open_clip_config.json").is_file():
                raise UserError(f"{folder}: no open_clip_config.json here; an open_clip model's folder is expected")
            self._model, self._prepare = open_clip.create_model_from_pretrained(f"local-dir:{local}")
            self._tokens = open_clip.get_tokenizer(f"local-dir:{local}")
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device).eval()

    def embed(self, frames_THWC: Frames) -> Vector:
        """The mean of the frames' unit embeddings, of unit length: [D]."""
        return _unit(self.embed_each(frames_THWC).mean(axis=0))

    @torch.inference_mode()
    def embed_each(self, frames_THWC: Frames) -> Vector:
        """The frames' unit embeddings [T, D]."""
        images_TCHW = torch.stack([self._prepare(Image.fromarray(frame)) for frame in frames_THWC])
        return _unit(self._model.encode_image(images_TCHW.to(self._device)).float().cpu().numpy())

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Vector:
        """Unit embeddings [N, D] of as many of the texts' tokens as the model reads, CLIP's own 77."""
        return _unit(self._model.encode_text(self._tokens(list(texts)).to(self._device)).float().cpu().numpy())


class Aesthetics:
    """The LAION predictor on an embedding: linear layers without activations, which are one linear map."""

    def __init__(self, url: str) -> None:
        with tempfile.TemporaryDirectory(prefix="rayramid-") as folder:
            path = Path(folder) / "head"
            storage.download(url, path)
            tensors = load_file(path) if url.endswith(".safetensors") else torch.load(path, weights_only=True)
        self._weight, self._bias = _folded(tensors, url)

    def __call__(self, embedding_D: Vector) -> float:
        """The score, about 1 to 10, of a unit embedding."""
        if len(embedding_D) != len(self._weight):
            raise UserError(
                f"score.aesthetics: the head is for embeddings of {len(self._weight)} values,"
                f" score.clip gives {len(embedding_D)}"
            )
        return float(self._weight @ embedding_D + self._bias)


def _folded(tensors: dict[str, torch.Tensor], url: str) -> tuple[Vector, float]:
    """All layers as one row of weights and a bias."""
    names = [name.removesuffix("weight") for name in tensors if name.endswith("weight")]
    if not names:
        raise UserError(f"{url}: no linear layers in this file; score.aesthetics is LAION's linear head")
    # Numbered as layers of a sequence: the tenth comes after the second.
    names.sort(key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])
    width = tensors[f"{names[0]}weight"].shape[1]
    weight, bias = np.eye(width), np.zeros(width)
    for name in names:
        layer = tensors[f"{name}weight"].double().numpy()
        weight, bias = layer @ weight, layer @ bias + tensors[f"{name}bias"].double().numpy()
    if weight.shape[0] != 1:
        raise UserError(f"{url}: the last layer gives {weight.shape[0]} values, not one score")
    return weight[0].astype(np.float32), float(bias[0])


def _unit(vectors: Vector) -> Vector:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
