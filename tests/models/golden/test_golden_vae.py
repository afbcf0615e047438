from dataclasses import replace

import pytest
import torch

from rayramid.models.importers.vae import config_from, from_published, to_published
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.posterior import posterior_kl, posterior_mean, posterior_sample
from rayramid.models.vae.tiling import Tiling, decode_tiled, encode_tiled


def lengths(golden) -> list[int]:
    """Frames of the stored cases."""
    return sorted(int(key.split(".")[1]) for key in golden.tensors if key.startswith("encode."))


def published_vae(golden, statistics="mmdit") -> CausalVAE:
    config = config_from(golden.config, statistics)
    vae = CausalVAE(config)
    vae.load_state_dict(from_published(golden.weights(), config))
    return vae.eval()


@pytest.mark.golden("vae")
@torch.no_grad()
def test_encodes_and_decodes_as_published(golden):
    vae = published_vae(golden)
    for frames in lengths(golden):
        moments, _ = vae.encode(golden["video"][:, :, :frames])
        golden.check(moments, f"encode.{frames}.moments")
        decoded, _ = vae.decode(posterior_mean(golden[f"encode.{frames}.moments"]))
        golden.check(decoded, f"decode.{frames}")


@pytest.mark.golden("vae")
@torch.no_grad()
def test_chunks_give_the_published_one_shot_result(golden):
    vae, longest = published_vae(golden), lengths(golden)[-1]
    video, moments = golden["video"][:, :, :longest], golden[f"encode.{longest}.moments"]
    for first, step in ((9, 8), (1, 16), (17, 8)):
        state, parts = None, []
        for frames in (video[:, :, :first], *video[:, :, first:].split(step, dim=2)):
            part, state = vae.encode(frames, state)
            parts.append(part)
        golden.check(torch.cat(parts, 2), f"encode.{longest}.moments")
    for step in (1, 2, 3):
        state, parts = None, []
        for z in posterior_mean(moments).split(step, dim=2):
            part, state = vae.decode(z, state)
            parts.append(part)
        golden.check(torch.cat(parts, 2), f"decode.{longest}")


@pytest.mark.golden("vae")
@torch.no_grad()
def test_posterior_as_published(golden):
    longest = lengths(golden)[-1]
    moments = golden[f"encode.{longest}.moments"]
    golden.check(posterior_sample(moments, golden["sample.eps"]), "sample.z", within=1e-6)
    # The stored divergence keeps the channels apart.
    stored = golden[f"kl.{longest}"]
    assert torch.allclose(posterior_kl(moments), stored.reshape(len(stored), -1).sum(1), rtol=1e-5)


@pytest.mark.golden("vae")
@torch.no_grad()
def test_published_tiling(golden):
    vae = published_vae(golden)
    tile = golden.meta["tile"]["sample_min_size"] // vae.config.spatial_ratio
    tiling = Tiling(tile=tile, overlap=tile // 4, blend="published")
    moments, _ = encode_tiled(vae, golden["tile.video"], None, tiling)
    golden.check(moments, "tile.moments_tiled")
    decoded, _ = decode_tiled(vae, golden["tile.z"], None, tiling)
    golden.check(decoded, "tile.decode_tiled")


@pytest.mark.golden("vae")
@torch.no_grad()
def test_statistics_and_pixels_as_published(golden):
    for name in golden.meta["latent_norm"]:
        vae = published_vae(golden, name)
        key = f"norm.pyramid_{name}"
        golden.check(vae.normalise(golden["norm.raw"]), f"{key}.video.normalised", within=1e-6)
        golden.check(vae.normalise(golden["norm.raw"][:, :, :1]), f"{key}.image.normalised", within=1e-6)
        decoded, _ = vae.decode(vae.denormalise(golden["decode_latent.z_normalised"]))
        # The published code cuts off fractions; one level in a thousand pixels is float noise at such an edge.
        pixels = (decoded[0] * 127.5 + 127.5).clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0)
        stored = golden[f"decode_latent.pyramid_{name}.frames"]
        assert (pixels != stored).float().mean() < 1e-3
        assert (pixels.int() - stored.int()).abs().max() <= 1


@pytest.mark.golden("vae")
def test_published_keys_come_back_bit_for_bit(golden):
    weights = golden.weights()
    config = config_from(golden.config)
    again = to_published(from_published(weights, config))
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[key], weights[key]) for key in weights)


@pytest.mark.golden("vae")
@torch.no_grad()
def test_a_vae_with_other_flags_is_noticed(golden):
    config = replace(config_from(golden.config), shortcuts=True)
    vae = CausalVAE(config)
    vae.load_state_dict(from_published(golden.weights(), config))
    moments, _ = vae.encode(golden["video"][:, :, :9])
    assert golden.error(moments, "encode.9.moments") > 0.1
