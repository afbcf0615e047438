"""A latent dataset of moving blobs in a second, written as the pipelines write it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from rayramid.models.vae.config import SMALL
from rayramid.models.vae.io import fingerprint, save_vae
from rayramid.models.vae.model import CausalVAE
from rayramid.pipelines import manifest
from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.latents import LATENT_SCHEMA, TEXT_SCHEMA, LatentWriter

DIM = 64
CAPTIONS = ("", "a blob moves left", "a blob moves right and on", "a picture")


def bf16(array: np.ndarray) -> bytes:
    return (
        torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).bfloat16().view(torch.uint8).numpy().tobytes()
    )


def blob(number: int, t: int, h: int, w: int) -> np.ndarray:
    """[16, T, H, W]: a bump that moves by a cell per latent, in a colour of its own."""
    rows, columns = np.mgrid[:h, :w]
    colour = np.random.default_rng(number).standard_normal((16, 1, 1))
    x = [(number % w + (1 if number % 2 else -1) * step) % w for step in range(t)]
    return np.stack([2 * colour * np.exp(-((rows - h / 2) ** 2 + (columns - at) ** 2) / 4) for at in x], axis=1)


def write_texts(root: Path) -> list[dict[str, object]]:
    (root / "text").mkdir(parents=True)
    writer = LatentWriter(root / "text" / "part.parquet", TEXT_SCHEMA, rows_per_group=8)
    lengths = [1 + len(caption.split()) for caption in CAPTIONS]
    draws = np.random.default_rng(0)
    writer.write(
        [
            {
                "caption_id": caption_id(caption),
                "caption": caption,
                "text_len": length,
                "tokens": bf16(draws.standard_normal((length, DIM))),
                "pooled": bf16(draws.standard_normal(DIM)),
                "dtype": "bfloat16",
            }
            for caption, length in zip(CAPTIONS, lengths, strict=True)
        ]
    )
    rows = []
    for caption, length, places in zip(CAPTIONS, lengths, writer.close(), strict=True):
        row = {"caption_id": caption_id(caption), "caption": caption, "text_len": length, "file": "text/part.parquet"}
        row |= {"row_group": places["tokens"].row_group, "row": places["tokens"].row}
        for part in ("tokens", "pooled"):
            place = places[part]
            row |= {f"{part}_offset": place.offset, f"{part}_length": place.length, f"{part}_crc32": place.crc32}
        rows.append(row)
    return rows


def write_latents(root: Path, bucket: tuple[int, int, int], clips: int, val: int) -> list[dict[str, object]]:
    h, w, t = bucket
    name = f"{8 * h}x{8 * w}x{t}"
    file = f"latents/bucket={name}/part.parquet"
    (root / file).parent.mkdir(parents=True)
    writer = LatentWriter(root / file, LATENT_SCHEMA, rows_per_group=1 if t > 1 else 32)
    latents = [blob(number, t, h, w) for number in range(clips)]
    writer.write([{"latent_id": f"{name}-{i}", "bucket": name, "latent": bf16(x)} for i, x in enumerate(latents)])
    texts = CAPTIONS[1:3] if t > 1 else CAPTIONS[3:]
    rows = []
    for number, places in enumerate(writer.close()):
        place = places["latent"]
        row: dict[str, object] = {
            "latent_id": f"{name}-{number}",
            "clip_id": f"c{number}",
            "bucket": name,
            "file": file,
        }
        row |= {"row_group": place.row_group, "row": place.row, "offset": place.offset, "length": place.length}
        row |= {"crc32": place.crc32, "t": t, "h": h, "w": w, "frames": 1 + 8 * (t - 1), "fps": 24.0}
        row |= {"split": "val" if number < val else "train", "kind": "video" if t > 1 else "image"}
        row |= {"source": f"s{number}", "uri": "", "licence": ""}
        row |= {"caption_ids": [caption_id(text) for text in texts], "text_lens": [1 + len(x.split()) for x in texts]}
        rows.append(row)
    return rows


def write_dataset(
    root: Path, buckets: Sequence[tuple[int, int, int]] = ((8, 8, 3),), clips: int = 6, val: int = 1, seed: int = 0
) -> str:
    """A dataset of `clips` clips in each bucket (h, w, t), `val` of them held out; `seed` is the VAE's."""
    torch.manual_seed(seed)
    vae = CausalVAE(SMALL)
    save_vae(str(root / "models" / "vae"), vae)
    texts = write_texts(root)
    index = [row for bucket in buckets for row in write_latents(root, bucket, clips, val)]
    facts = {
        "vae": {"url": "models/vae", "fingerprint": fingerprint(vae)},
        "text": {"url": "models/text", "fingerprint": "tiny"},
        "statistics": {"first_mean": 0.0},
    }
    manifest.publish(
        str(root),
        facts,
        pa.Table.from_pylist(index, schema=manifest.INDEX_SCHEMA),
        pa.Table.from_pylist(texts, schema=manifest.TEXT_INDEX_SCHEMA),
    )
    return str(root)
