import io
import json
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import export as exports
from rayramid.pipelines import manifest
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.export import export
from rayramid.pipelines.identity import caption_id
from rayramid.pipelines.latents import LATENT_SCHEMA, TEXT_SCHEMA, LatentWriter
from rayramid.pipelines.tensors import bf16_bytes

CLIPS = {"one": ("train", "a cat"), "two": ("train", "a dog"), "three": ("val", "a cat")}
LATENTS = {
    name: torch.randn(16, 2, 4, 4, generator=torch.Generator().manual_seed(n)).bfloat16().float()
    for n, name in enumerate(CLIPS)
}
TOKENS, POOLED = torch.linspace(-1, 1, 3 * 8).view(3, 8).bfloat16(), torch.linspace(0, 1, 4).bfloat16()


@pytest.fixture
def dataset(root):
    latent_places = written(
        f"{root}/latents/a.parquet", LATENT_SCHEMA, [{"latent": bf16_bytes(LATENTS[n])} for n in CLIPS]
    )
    captions = sorted({caption for _, caption in CLIPS.values()})
    row = {"tokens": bf16_bytes(TOKENS), "pooled": bf16_bytes(POOLED)}
    text_places = written(f"{root}/text/a.parquet", TEXT_SCHEMA, [row] * len(captions))
    known = {"file": "latents/a.parquet", "bucket": "32x32x2", "t": 2, "h": 4, "w": 4, "frames": 9, "fps": 24.0}
    index = [
        {
            **known,
            **vars(places["latent"]),
            **{"latent_id": name, "clip_id": name, "split": split, "uri": f"/videos/{name}.mp4"},
            **{"caption_ids": [caption_id(caption)], "text_lens": [3]},
        }
        for (name, (split, caption)), places in zip(CLIPS.items(), latent_places, strict=True)
    ]
    texts = [
        {
            **{"caption_id": caption_id(caption), "caption": caption, "file": "text/a.parquet", "text_len": 3},
            **{f"{n}_{k}": vars(places[n])[k] for n in ("tokens", "pooled") for k in ("offset", "length", "crc32")},
        }
        for caption, places in zip(captions, text_places, strict=True)
    ]
    facts = {"vae": {"url": "models/vae/x", "fingerprint": "v"}, "text": {"url": "s3://b/text", "fingerprint": "t"}}
    manifest.publish(
        root,
        facts,
        pa.Table.from_pylist(index, schema=manifest.INDEX_SCHEMA),
        pa.Table.from_pylist(texts, schema=manifest.TEXT_INDEX_SCHEMA),
    )
    return LatentDataset.open(root)


def written(url, schema, rows):
    with tempfile.TemporaryDirectory() as folder:
        writer = LatentWriter(Path(folder) / "a.parquet", schema, 1)
        writer.write(rows)
        found = writer.close()
        storage.upload(Path(folder) / "a.parquet", url)
    return found


def loaded(url):
    return torch.load(io.BytesIO(storage.read_bytes(url)), weights_only=True)


def test_pyramid_flow_gets_what_its_trainer_loads(dataset, root):
    target = storage.join(root, "exported")
    steps = []
    assert export(dataset, target, "pyramid-flow", lambda *step: steps.append(step)) == 3
    assert steps == [(1, 3), (2, 3), (3, 3)]
    lines = [json.loads(line) for line in storage.read_bytes(storage.join(target, "train.jsonl")).splitlines()]
    assert {line["video"]: line["text"] for line in lines} == {"/videos/one.mp4": "a cat", "/videos/two.mp4": "a dog"}
    for line in lines:
        latent_1CTHW, features = loaded(line["latent"]), loaded(line["text_fea"])
        assert torch.equal(latent_1CTHW, LATENTS[Path(line["video"]).stem].bfloat16()[None])
        assert features["prompt_attention_mask"].sum() == 3
        assert features["prompt_embed"].shape == (1, 128, 8)
        assert torch.equal(features["prompt_embed"][0, :3], TOKENS)
        assert torch.equal(features["pooled_prompt_embed"], POOLED[None])
    assert len(storage.read_bytes(storage.join(target, "val.jsonl")).splitlines()) == 1
    with pytest.raises(UserError, match="not empty"):
        export(dataset, target, "webdataset")


def test_webdataset_tars_hold_a_sample_per_clip_and_are_cut_by_size(dataset, root, monkeypatch):
    monkeypatch.setattr(exports, "TAR_BYTES", 1000)
    target = storage.join(root, "tars")
    assert export(dataset, target, "webdataset") == 3
    names = [url.rpartition("/")[2] for url in storage.list_files(target)]
    assert names == ["train-000000.tar", "train-000001.tar", "val-000000.tar"]
    found = {}
    for name in names:
        with tarfile.open(fileobj=io.BytesIO(storage.read_bytes(storage.join(target, name)))) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    assert sorted(found) == sorted(f"{name}.{suffix}" for name in CLIPS for suffix in ("safetensors", "txt", "json"))
    tensors = load(found["two.safetensors"])
    assert torch.equal(tensors["latent"], LATENTS["two"].bfloat16())
    assert torch.equal(tensors["tokens"], TOKENS)
    assert found["two.txt"] == b"a dog"
    assert json.loads(found["three.json"])["uri"] == "/videos/three.mp4"
