import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import manifest
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.latents import LATENT_SCHEMA, TEXT_SCHEMA, LatentWriter
from rayramid.pipelines.tensors import bf16_bytes

LATENT = (torch.arange(16 * 2 * 4 * 4) % 256).float().view(16, 2, 4, 4) / 64
TOKENS, POOLED = torch.linspace(-1, 1, 3 * 8).view(3, 8).bfloat16().float(), torch.linspace(0, 1, 4).bfloat16().float()


def places(url, schema, row):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        writer = LatentWriter(path, schema, 1)
        writer.write([row])
        found = writer.close()[0]
        storage.upload(path, url)
    return {name: vars(place) for name, place in found.items()}


def publish(root, latent=LATENT, vae="vae-one", **changes):
    place = places(f"{root}/latents/a.parquet", LATENT_SCHEMA, {"latent": bf16_bytes(latent)})["latent"]
    row = {"latent_id": "l", "clip_id": "c", "split": "train", "bucket": "32x32x2", "t": 2, "h": 4, "w": 4, "fps": 24.0}
    row |= changes
    index = [{**row, **place, "file": "latents/a.parquet", "caption_ids": [caption_id("")], "text_lens": [3]}]
    text = places(f"{root}/text/a.parquet", TEXT_SCHEMA, {"tokens": bf16_bytes(TOKENS), "pooled": bf16_bytes(POOLED)})
    spread = {f"{n}_{k}": text[n][k] for n in ("tokens", "pooled") for k in ("offset", "length", "crc32")}
    texts = [{"caption_id": caption_id(""), "caption": "", "file": "text/a.parquet", "text_len": 3, **spread}]
    facts = {"vae": {"url": "models/vae/x", "fingerprint": vae}, "text": {"url": "s3://b/text", "fingerprint": "t"}}
    return manifest.publish(
        root,
        facts,
        pa.Table.from_pylist(index, schema=manifest.INDEX_SCHEMA),
        pa.Table.from_pylist(texts, schema=manifest.TEXT_INDEX_SCHEMA),
    )


def test_latents_and_texts_come_back_bit_for_bit(root):
    assert publish(root) == (1, True)
    dataset = LatentDataset.open(root)
    assert len(dataset) == 1
    assert torch.equal(dataset.latent(0), LATENT)
    tokens_LD, pooled_P = dataset.text(dataset.empty_caption_id)
    assert torch.equal(tokens_LD, TOKENS)
    assert torch.equal(pooled_P, POOLED)
    assert dataset.buckets == {"32x32x2": 1}
    assert dataset.vae_url == f"{root}/models/vae/x"
    assert dataset.text_url == "s3://b/text"


def test_bf16_bytes_are_little_endian_and_row_major():
    assert np.frombuffer(bf16_bytes(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T), "<u2").tolist() == [
        0x3F80,
        0x4040,
        0x4000,
        0x4080,
    ]


def test_equal_content_makes_no_new_version_and_other_content_keeps_the_old(root):
    publish(root)
    assert publish(root) == (1, False)
    assert publish(root, LATENT + 1) == (2, True)
    assert LatentDataset.open(root).manifest["parent"] == 1
    assert LatentDataset.open(root, version=1).version == 1
    with pytest.raises(UserError, match="no version 3; the latest is 2"):
        LatentDataset.open(root, version=3)


def test_a_number_that_a_crash_took_is_left_out(root):
    publish(root)
    storage.write_atomic(f"{root}/_manifest/v2.index.parquet", b"half a version")
    assert publish(root, LATENT + 1) == (3, True)
    assert LatentDataset.open(root).version == 3


def test_latents_of_another_vae_are_refused_by_name(root):
    publish(root)
    LatentDataset.open(root, vae_fingerprint="vae-one")
    with pytest.raises(UserError, match=r"latents of VAE vae-one, not of vae-two"):
        LatentDataset.open(root, vae_fingerprint="vae-two")


def test_latents_at_another_rate_are_refused_by_name(root):
    publish(root)
    LatentDataset.open(root, fps=24)
    with pytest.raises(UserError, match=r"version 1 holds latents at 24\.0 fps, not at 12; encode the clips again"):
        LatentDataset.open(root, fps=12)


@pytest.mark.parametrize("changes", [{"bucket": "64x32x2"}, {"t": 1}, {"h": 3, "bucket": "24x32x2"}, {"w": 3}])
def test_a_latent_that_is_not_of_its_buckets_size_is_refused_by_name(tmp_path, changes):
    # Of 1024 bytes, whatever the index says of it: 16 channels of 2 x 4 x 4 values.
    publish(str(tmp_path), **changes)
    with pytest.raises(UserError, match=r"latents/a\.parquet: latent l of 1024 bytes is not of size .* as bucket"):
        LatentDataset.open(str(tmp_path))


def test_changed_files_are_refused_by_name(root):
    publish(root)
    dataset = LatentDataset.open(root)
    url = f"{root}/latents/a.parquet"
    data = bytearray(storage.read_bytes(url))
    data[dataset.index["offset"][0].as_py()] ^= 1
    storage.write_atomic(url, bytes(data))
    with pytest.raises(UserError, match=r"a\.parquet: not the bytes that version 1 was made with"):
        dataset.latent(0)
    storage.write_atomic(f"{root}/_manifest/v1.index.parquet", b"other")
    with pytest.raises(UserError, match="not the file that version 1"):
        LatentDataset.open(root)


def test_no_dataset_and_no_caption_are_one_line(root):
    with pytest.raises(UserError, match="no dataset here"):
        LatentDataset.open(root)
    publish(root)
    with pytest.raises(UserError, match="no caption 'x'"):
        LatentDataset.open(root).text("x")
