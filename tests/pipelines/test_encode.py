"""The jobs that need models: a VAE fitted to a clip, and the tiny text encoder."""

import numpy as np
import pytest
import torch

from rayramid.models.media.errors import DecodeError
from rayramid.models.media.read import read_frames
from rayramid.models.vae.io import fingerprint, load_vae, save_vae
from rayramid.models.vae.pca import pca_vae
from rayramid.models.vae.streaming import encode_video
from rayramid.pipelines.encode import EncodeJob, clip_frames
from rayramid.pipelines.encoders import made, text_encoder, vae_encoder
from rayramid.pipelines.frames import SourceFrames


def clip(path, **changes):
    row = {"latent_id": "l", "clip_id": "c", "source_id": "s", "uri": str(path), "kind": "video", "bucket": "64x64x2"}
    return {**row, "start_ms": 0, "end_ms": 1000, "width": 64, "height": 64, "frames": 9, "fps": 24.0, **changes}


@pytest.fixture
def vae_url(tmp_path, two_shots):
    vae = pca_vae([np.concatenate(list(read_frames(two_shots, 0, 1000, size=(64, 64))))])
    save_vae(str(tmp_path / "vae"), vae)
    return str(tmp_path / "vae")


def test_a_latent_is_the_vaes_posterior_mean_of_exactly_the_clips_frames(two_shots, vae_url):
    vae = load_vae(vae_url)
    ((row,),) = EncodeJob(vae_url, fingerprint(vae), deadline_s=30)([clip(two_shots)])
    frames = np.concatenate(list(read_frames(two_shots, 0, 1000, size=(64, 64))))[:9]
    expected = encode_video(vae, [frames]).bfloat16()
    stored = torch.frombuffer(bytearray(row["latent"]), dtype=torch.bfloat16).view(row["latent_shape"])
    assert row["latent_shape"] == [16, 2, 8, 8]
    assert torch.equal(stored, expected)
    assert row["first_std"] > 0


def test_a_foreign_vae_is_refused_by_name(vae_url):
    with pytest.raises(ValueError, match="the plan was made for deadbeef"):
        EncodeJob(vae_url, "deadbeef", deadline_s=30)


def test_frames_start_at_the_clips_start_and_are_as_many_as_wanted(two_shots):
    frames = SourceFrames(deadline_s=30)
    second = np.concatenate(list(clip_frames(frames, clip(two_shots, start_ms=1000, end_ms=2000))))
    assert second.shape == (9, 64, 64, 3)
    assert second[0, 0, 0, 2] > second[0, 0, 0, 0]
    with pytest.raises(DecodeError, match="24 of 25 frames"):
        list(clip_frames(frames, clip(two_shots, frames=25)))


def test_the_vae_is_fitted_once_and_kept(tmp_path, two_shots):
    root = str(tmp_path / "root")
    first = vae_encoder(root, "pca", [clip(two_shots)], 30)
    assert first.url == f"models/vae/{first.fingerprint}"
    assert fingerprint(load_vae(f"{root}/{first.url}")) == first.fingerprint
    # Other clips would give another VAE; the recorded one holds.
    again = vae_encoder(root, "pca", [clip(two_shots, start_ms=1000, end_ms=2000)], 30)
    assert again == first == made(root, "vae")


def test_the_tiny_text_encoder_embeds_captions_and_the_empty_prompt(tmp_path):
    from rayramid.pipelines.embed import EmbedJob

    root = str(tmp_path)
    text = text_encoder(root, "tiny")
    assert text_encoder(root, "tiny") == text
    job = EmbedJob(f"{root}/{text.url}")
    rows = [row for (row,) in job([{"caption_id": "a", "caption": "a red circle"}, {"caption_id": "b", "caption": ""}])]
    assert [row["text_fingerprint"] for row in rows] == [text.fingerprint] * 2
    assert rows[0]["text_len"] > rows[1]["text_len"] >= 1
    assert len(rows[1]["tokens"]) == rows[1]["text_len"] * 64 * 2
    assert len(rows[0]["pooled"]) == 64 * 2
