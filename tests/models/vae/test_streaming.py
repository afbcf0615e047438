from dataclasses import replace

import numpy as np
import pytest
import torch
from devices import NEAR, on_cuda

from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.posterior import posterior_mean
from rayramid.models.vae.streaming import decode_chunk, decode_video, encode_video, regroup, to_pixels, to_signal

PLAIN = VAEConfig(
    encoder_channels=(4, 8, 8),
    encoder_layers=(1, 2, 1),
    spatial_down=(True, True, True),
    temporal_down=(True, True, True),
    decoder_channels=(8, 8, 4),
    decoder_layers=(1, 1, 2),
    spatial_up=(True, True, True),
    temporal_up=(True, True, True),
    latent_channels=4,
    norm_groups=2,
)
EXTRAS = VAEConfig(
    encoder_channels=(4, 8, 8),
    encoder_layers=(1, 1, 1),
    spatial_down=(True, False, False),
    temporal_down=(True, True, True),
    decoder_channels=(8, 8, 4),
    decoder_layers=(1, 1, 1),
    spatial_up=(False, False, True),
    temporal_up=(True, True, True),
    latent_channels=4,
    norm_groups=2,
    stem_patch=4,
    shortcuts=True,
    patch_skip=True,
)


def random_vae(config: VAEConfig, dtype: torch.dtype = torch.float64) -> CausalVAE:
    """Every weight random, those that start at zero included."""
    torch.manual_seed(0)
    vae = CausalVAE(config)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return vae.to(dtype).eval()


def random_video(frames: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(1, 3, frames, 16, 24, dtype=dtype) * 2 - 1


def encode_chunks(vae, video, sizes):
    state, moments = None, []
    for frames in video.split(sizes, dim=2):
        chunk, state = vae.encode(frames, state)
        moments.append(chunk)
    return torch.cat(moments, 2)


def decode_chunks(vae, z, sizes):
    state, frames = None, []
    for latents in z.split(sizes, dim=2):
        chunk, state = vae.decode(latents, state)
        frames.append(chunk)
    return torch.cat(frames, 2)


@pytest.mark.parametrize("config", [PLAIN, EXTRAS], ids=["plain", "extras"])
@pytest.mark.parametrize("sizes", [(1, 8, 8, 8, 8), (9, 8, 16), (1, 32), (17, 16), (25, 8)])
@torch.no_grad()
def test_encoding_in_chunks_equals_encoding_at_once(config, sizes):
    vae, video = random_vae(config), random_video(33)
    whole, _ = vae.encode(video)
    assert whole.shape == (1, 8, 5, 2, 3)
    torch.testing.assert_close(encode_chunks(vae, video, sizes), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", [PLAIN, EXTRAS], ids=["plain", "extras"])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (2, 3), (1, 4), (4, 1), (3, 1, 1)])
@torch.no_grad()
def test_decoding_in_chunks_equals_decoding_at_once(config, sizes):
    vae, z = random_vae(config), torch.randn(1, 4, 5, 2, 3, dtype=torch.float64)
    whole, _ = vae.decode(z)
    assert whole.shape == (1, 3, 33, 16, 24)
    torch.testing.assert_close(decode_chunks(vae, z, sizes), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("device", ["cpu", on_cuda()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_chunks_agree_in_the_dtypes_of_inference(dtype, device):
    vae, video = random_vae(EXTRAS, dtype).to(device), random_video(17, dtype).to(device)
    within = {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    whole, _ = vae.encode(video)
    assert whole.dtype == dtype
    torch.testing.assert_close(encode_chunks(vae, video, (1, 16)), whole, rtol=within, atol=within)
    z = posterior_mean(whole)
    torch.testing.assert_close(decode_chunks(vae, z, (1, 1, 1)), vae.decode(z)[0], rtol=within, atol=within)


@pytest.mark.parametrize("device", [on_cuda()])
@torch.no_grad()
def test_cuda_encodes_and_decodes_as_the_cpu(device):
    vae, video = random_vae(EXTRAS, torch.float32), random_video(17, torch.float32)
    whole, _ = vae.encode(video)
    frames, _ = vae.decode(posterior_mean(whole))
    vae.to(device)
    torch.testing.assert_close(encode_chunks(vae, video.to(device), (1, 16)).cpu(), whole, **NEAR)
    torch.testing.assert_close(decode_chunks(vae, posterior_mean(whole).to(device), (1, 2)).cpu(), frames, **NEAR)


@pytest.mark.parametrize("config", [PLAIN, EXTRAS], ids=["plain", "extras"])
@torch.no_grad()
def test_no_frame_or_latent_depends_on_a_later_one(config):
    vae, video = random_vae(config), random_video(25)
    later = video.clone()
    later[:, :, 9:] = 0
    torch.testing.assert_close(vae.encode(later)[0][:, :, :2], vae.encode(video)[0][:, :, :2], rtol=1e-10, atol=1e-12)
    z = torch.randn(1, 4, 4, 2, 3, dtype=torch.float64)
    cut = z.clone()
    cut[:, :, 2:] = 0
    torch.testing.assert_close(vae.decode(cut)[0][:, :, :9], vae.decode(z)[0][:, :, :9], rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_a_state_can_be_used_again():
    vae, video = random_vae(EXTRAS), random_video(17)
    _, state = vae.encode(video[:, :, :9])
    once, _ = vae.encode(video[:, :, 9:], state)
    again, _ = vae.encode(video[:, :, 9:], state)
    assert torch.equal(once, again)


@torch.no_grad()
def test_a_state_holds_no_more_than_two_frames_of_each_convolution():
    vae, video = random_vae(PLAIN), random_video(33)
    _, short = vae.encode(video[:, :, :9])
    _, long = vae.encode(video)
    assert [tail.shape for tail in long] == [tail.shape for tail in short]
    assert all(tail.shape[2] <= 2 for tail in long)
    assert all(tail.untyped_storage().nbytes() == tail.numel() * 8 for tail in long)


@pytest.mark.parametrize(
    ("frames", "state", "message"),
    [
        (8, None, "a first chunk of 8 frames; the VAE needs 1 \\+ 8n"),
        (9, (), "a later chunk of 9 frames; the VAE needs 8n"),
    ],
)
def test_a_chunk_of_another_length_is_refused(frames, state, message):
    with pytest.raises(ValueError, match=message):
        random_vae(PLAIN).encode(random_video(frames), state)


def test_a_size_that_8_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="frames are 20x16; the VAE needs multiples of 8"):
        random_vae(PLAIN).encode(torch.zeros(1, 3, 1, 16, 20, dtype=torch.float64))


def frames_of(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (length, 16, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("sizes", [(25,), (1,) * 25, (7, 7, 7, 4), (10, 15)])
def test_frames_may_come_in_any_portions(sizes):
    vae, frames = random_vae(EXTRAS), frames_of(25)
    portions = np.split(frames, np.cumsum(sizes)[:-1])
    whole = posterior_mean(vae.encode(to_signal(frames, vae))[0])[0].float()
    for step in (8, 16):
        latents = encode_video(vae, iter(portions), step=step)
        assert latents.dtype == torch.float32
        assert not latents.requires_grad
        torch.testing.assert_close(latents, whole, rtol=1e-6, atol=1e-6)


def test_portions_are_regrouped_without_loss():
    portions = [np.arange(start, stop) for start, stop in ((0, 3), (3, 20), (20, 21), (21, 25))]
    assert [list(frames) for frames in regroup(portions, 8)] == [
        list(range(9)), list(range(9, 17)), list(range(17, 25))
    ]  # fmt: skip
    assert [len(frames) for frames in regroup([np.arange(12)], 8)] == [9, 3]


@pytest.mark.parametrize("length", [2, 12, 24])
def test_a_video_that_ends_inside_a_latent_is_refused(length):
    with pytest.raises(ValueError, match="the VAE needs"):
        encode_video(random_vae(PLAIN), [frames_of(length)])
    with pytest.raises(ValueError, match="without frames"):
        encode_video(random_vae(PLAIN), [])


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_video_is_decoded_piece_by_piece(step):
    vae = random_vae(EXTRAS)
    latents = torch.randn(4, 4, 2, 3)
    with torch.no_grad():
        whole = to_pixels(vae.decode(latents[None].double())[0][0])
    pieces = list(decode_video(vae, latents, step))
    assert [len(piece) for piece in pieces] == [1 + 8 * (step - 1), *[8 * step] * (4 // step - 1)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_a_chunk_decodes_with_the_state_of_the_chunk_before():
    vae, latents = random_vae(EXTRAS), torch.randn(4, 3, 2, 3)
    whole = np.concatenate(list(decode_video(vae, latents, step=3)))
    first, state = decode_chunk(vae, latents[:, :1])
    second, _ = decode_chunk(vae, latents[:, 1:], state)
    assert np.array_equal(np.concatenate([first, second]), whole)


def test_pixels_survive_the_way_to_the_signal_and_back():
    vae = random_vae(PLAIN, torch.float32)
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(to_pixels(to_signal(frames, vae)[0]), frames)
    assert to_signal(frames, vae).min() == -1
    assert to_signal(frames, vae).max() == 1


def test_the_first_latent_has_statistics_of_its_own():
    vae = CausalVAE(replace(PLAIN, image_shift=1.0, image_scale=10.0, video_shift=2.0, video_scale=100.0))
    z = torch.full((4, 3, 1, 1), 3.0)
    assert vae.normalise(z)[0, :, 0, 0].tolist() == [20.0, 100.0, 100.0]
    assert vae.normalise(z, first=False)[0, :, 0, 0].tolist() == [100.0, 100.0, 100.0]
    assert vae.normalise(z[:, :1])[0, :, 0, 0].tolist() == [20.0]
    for first in (True, False):
        assert torch.equal(vae.denormalise(vae.normalise(z, first), first), z)
    batch = z.expand(2, 4, 3, 5, 6)
    assert torch.equal(vae.normalise(batch)[1, :, :, :1, :1], vae.normalise(z))


@pytest.mark.parametrize("config", [PLAIN, EXTRAS])
@torch.no_grad()
def test_a_clip_alone_is_coded_as_in_company(config):
    # Alone, on a CPU, it goes through another convolution of torch's.
    vae, video = random_vae(config, torch.float32), random_video(9, torch.float32)
    alone, together = vae.encode(video)[0], vae.encode(video.expand(2, -1, -1, -1, -1))[0]
    assert torch.allclose(alone, together[:1], atol=1e-5)
    latents = posterior_mean(alone)
    assert torch.allclose(vae.decode(latents)[0], vae.decode(latents.expand(2, -1, -1, -1, -1))[0][:1], atol=1e-5)
