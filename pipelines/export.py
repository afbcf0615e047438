"""A version of the dataset in the forms that other trainers read: Pyramid Flow's jsonl with `.pt`, WebDataset tars.

Shape letters: C channels, T latents in time, H W latent grid, L text tokens, D their width, P the pooled width.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.job import Row
from rayramid.pipelines.tables import rows_of

# As the official trainer's text encoder pads: to so many T5 tokens.
TOKENS = 128
TAR_BYTES = 512 * 1024**2
_WRITERS = 8

Done = Callable[[int, int], None]


def export(dataset: LatentDataset, target: str, form: str, on_clip: Done = lambda done, total: None) -> int:
    """Write all clips of a version below `target`; the number of clips. Latents stay raw, as the VAE gives them.

    `form` is a key of FORMS. `on_clip` is called with the clips done and in all.
    """
    if next(storage.list_files(target), None) is not None:
        raise UserError(f"{target}: not empty; export into a new folder")
    done = 0
    for _ in FORMS[form](dataset, target):
        done += 1
        on_clip(done, len(dataset))
    return done


def _pyramid_flow(dataset: LatentDataset, target: str) -> Iterator[None]:
    """`latents/<clip>.pt` [1, C, T, H, W] in bf16, `text/<caption>.pt`, and a line per clip in `<split>.jsonl`.

    Paths are those below `target`, absolute where it is local: the trainer loads what stands there.
    """
    captions = _captions(dataset)
    for caption in {row["caption_ids"][0] for row in rows_of(dataset.index)}:
        url = storage.join(target, "text", f"{caption}.pt")
        storage.write_atomic(url, _torch_bytes(_padded(*dataset.text(caption))))

    def written(numbered: tuple[int, Row]) -> tuple[str, Row]:
        number, clip = numbered
        latent = storage.join(target, "latents", f"{clip['clip_id']}.pt")
        storage.write_atomic(latent, _torch_bytes(dataset.latent(number).bfloat16()[None]))
        caption = clip["caption_ids"][0]
        text = storage.join(target, "text", f"{caption}.pt")
        return clip["split"], {"video": clip["uri"], "text": captions[caption], "latent": latent, "text_fea": text}

    lines: dict[str, list[str]] = {}
    with ThreadPoolExecutor(_WRITERS) as pool:
        for split, line in pool.map(written, enumerate(rows_of(dataset.index))):
            lines.setdefault(split, []).append(json.dumps(line))
            yield
    for split, of_split in lines.items():
        storage.write_atomic(storage.join(target, f"{split}.jsonl"), ("\n".join(of_split) + "\n").encode())


def _webdataset(dataset: LatentDataset, target: str) -> Iterator[None]:
    """`<split>-<number>.tar` with `<clip>.safetensors` (latent, tokens, pooled in bf16), `.txt` and `.json` each."""
    captions = _captions(dataset)
    for split in sorted(set(dataset.index["split"].to_pylist())):
        clips = ((row, clip) for row, clip in enumerate(rows_of(dataset.index)) if clip["split"] == split)
        for number in count():
            packed, samples = io.BytesIO(), 0
            with tarfile.open(fileobj=packed, mode="w") as tar:
                for row, clip in clips:
                    _add_sample(tar, dataset, row, clip, captions)
                    samples += 1
                    yield
                    if packed.tell() > TAR_BYTES:
                        break
            if samples == 0:
                break
            storage.write_atomic(storage.join(target, f"{split}-{number:06d}.tar"), packed.getvalue())


def _add_sample(tar: tarfile.TarFile, dataset: LatentDataset, row: int, clip: Row, captions: dict[str, str]) -> None:
    caption = clip["caption_ids"][0]
    tokens_LD, pooled_P = dataset.text(caption)
    tensors = {"latent": dataset.latent(row), "tokens": tokens_LD, "pooled": pooled_P}
    facts = {name: clip[name] for name in ("clip_id", "source", "uri", "licence", "bucket", "frames", "fps")}
    parts = {
        "safetensors": save({name: tensor.bfloat16().contiguous() for name, tensor in tensors.items()}),
        "txt": captions[caption].encode(),
        "json": json.dumps({**facts, "vae_fingerprint": dataset.vae_fingerprint}).encode(),
    }
    for suffix, data in parts.items():
        info = tarfile.TarInfo(f"{clip['clip_id']}.{suffix}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def _padded(tokens_LD: Tensor, pooled_P: Tensor) -> dict[str, Tensor]:
    """A caption's features as the official trainer loads them, padded to TOKENS with a mask."""
    length = min(len(tokens_LD), TOKENS)
    padded_1LD = torch.zeros(1, TOKENS, tokens_LD.shape[1], dtype=torch.bfloat16)
    padded_1LD[0, :length] = tokens_LD[:length]
    mask_1L = torch.zeros(1, TOKENS, dtype=torch.long)
    mask_1L[0, :length] = 1
    return {
        "prompt_embed": padded_1LD,
        "prompt_attention_mask": mask_1L,
        "pooled_prompt_embed": pooled_P.bfloat16()[None],
    }


def _captions(dataset: LatentDataset) -> dict[str, str]:
    names, texts = (dataset.text_index[name].to_pylist() for name in ("caption_id", "caption"))
    return dict(zip(names, texts, strict=True))


def _torch_bytes(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


FORMS: Mapping[str, Callable[[LatentDataset, str], Iterator[None]]] = {
    "pyramid-flow": _pyramid_flow,
    "webdataset": _webdataset,
}
