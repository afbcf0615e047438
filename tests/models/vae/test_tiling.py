import pytest
import torch

from rayramid.models.errors import UserError
from rayramid.models.vae.config import SMALL
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.posterior import posterior_mean
from rayramid.models.vae.streaming import decode_video, encode_video, to_pixels
from rayramid.models.vae.tiling import Tiling, decode_tiled, encode_tiled, spans

TILING = Tiling(tile=8, overlap=4)


def vae_with_weights(deviation: float) -> CausalVAE:
    torch.manual_seed(0)
    vae = CausalVAE(SMALL)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(torch.randn_like(parameter) * deviation)
    return vae.eval()


def test_tiles_are_equal_evenly_spread_and_overlap_enough():
    assert spans(8, TILING) == [(0, 8)]
    assert spans(13, TILING) == [(0, 8), (2, 10), (5, 13)]
    assert spans(9, TILING) == [(0, 8), (1, 9)]
    assert spans(20, TILING) == [(0, 8), (4, 12), (8, 16), (12, 20)]
    assert spans(96, Tiling(tile=64, overlap=16)) == [(0, 64), (32, 96)]
    assert spans(10, Tiling(tile=8, overlap=2, blend="published")) == [(0, 8), (6, 10)]


def test_a_frame_of_one_tile_is_not_cut():
    vae, video = vae_with_weights(0.02), torch.rand(1, 3, 9, 64, 64)
    with torch.no_grad():
        assert torch.equal(encode_tiled(vae, video, None, TILING)[0], vae.encode(video)[0])


@torch.no_grad()
def test_tiles_equal_the_whole_where_the_rim_covers_what_the_codec_sees():
    # The linear codec sees one latent far; the network is silent. The rim is a quarter of 4 latents.
    vae = CausalVAE(SMALL)
    video = torch.rand(1, 3, 9, 96, 104)
    moments, _ = encode_tiled(vae, video, None, TILING)
    torch.testing.assert_close(moments, vae.encode(video)[0], rtol=1e-5, atol=1e-5)
    z = posterior_mean(moments)
    torch.testing.assert_close(decode_tiled(vae, z, None, TILING)[0], vae.decode(z)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blend", ["smooth", "published"])
@torch.no_grad()
def test_tiles_stream_through_time(blend):
    vae, tiling = vae_with_weights(0.02), Tiling(tile=8, overlap=2, blend=blend)
    video = torch.rand(1, 3, 17, 80, 96)
    whole, _ = encode_tiled(vae, video, None, tiling)
    first, state = encode_tiled(vae, video[:, :, :9], None, tiling)
    second, _ = encode_tiled(vae, video[:, :, 9:], state, tiling)
    torch.testing.assert_close(torch.cat([first, second], 2), whole, rtol=1e-4, atol=1e-5)
    z = posterior_mean(whole)
    decoded, _ = decode_tiled(vae, z, None, tiling)
    pieces = [torch.from_numpy(piece) for piece in decode_video(vae, z[0], tiling=tiling)]
    difference = torch.cat(pieces).int() - torch.from_numpy(to_pixels(decoded[0])).int()
    assert difference.abs().max() <= 1
    latents = encode_video(vae, [to_pixels(video[0] * 2 - 1)], tiling=tiling)
    assert latents.shape == (16, 3, 10, 12)


@torch.no_grad()
def test_no_seam_shows_where_tiles_meet():
    # The network normalises each tile by itself, so tiles disagree: the worst case for a blend.
    vae = vae_with_weights(0.05)
    z = torch.randn(1, 16, 1, 12, 32)
    frames, _ = decode_tiled(vae, z, None, Tiling(tile=12, overlap=4))
    steps = (frames[..., 1:] - frames[..., :-1]).abs().mean(dim=(0, 1, 2, 3))
    # Steps at the ends and the middle of overlaps, where a wrong blend jumps; only patch borders are compared.
    starts_and_stops = {place for span in spans(32, Tiling(tile=12, overlap=4)) for place in span} - {0, 32}
    patch_steps = steps[7::8]
    border = torch.stack([patch_steps[place - 1] for place in starts_and_stops]).mean()
    interior = torch.stack([step for i, step in enumerate(patch_steps) if i + 1 not in starts_and_stops]).mean()
    assert border < 1.2 * interior


def test_impossible_tilings_are_refused():
    with pytest.raises(UserError, match="tiles of 8 latents can't overlap by 8"):
        Tiling(tile=8, overlap=8)
    with pytest.raises(UserError, match="side that 4 divides, not 10"):
        Tiling(tile=10, overlap=2, blend="published")
