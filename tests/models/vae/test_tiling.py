import pytest
import torch

from rayramid.models.errors import UserError
from rayramid.models.vae.config import SMALL
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.posterior import posterior_mean
from rayramid.models.vae.streaming import decode_video, encode_video, to_pixels
from rayramid.models.vae.tiling import Tiling, decode_tiled, encode_tiled, join_published, join_smooth, spans

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
def test_tiles_equal_the_whole_where_nothing_beyond_them_is_seen():
    # The network is silent; the linear encoder sees its own patch alone, the decoder one more latent on each side.
    vae = CausalVAE(SMALL)
    video = torch.rand(1, 3, 9, 96, 104)
    moments, _ = encode_tiled(vae, video, None, TILING)
    torch.testing.assert_close(moments, vae.encode(video)[0], rtol=1e-5, atol=1e-5)
    z = posterior_mean(moments)
    tiled, whole = decode_tiled(vae, z, None, TILING)[0], vae.decode(z)[0]
    torch.testing.assert_close(tiled[..., :32, :16], whole[..., :32, :16], rtol=1e-5, atol=1e-5)
    assert (tiled - whole).square().mean() < 0.01 * whole.var()


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


def strip(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, 1, -1)


def test_tiles_that_disagree_fade_linearly_over_their_overlap():
    joined = join_smooth([strip(*[0.0] * 8), strip(*[1.0] * 8)], [(0, 8), (4, 12)], scale=1, dim=4).flatten()
    assert joined.tolist() == [0, 0, 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, 1, 1]


def test_by_default_the_fade_takes_128_pixels():
    places = spans(112, Tiling())
    assert places == [(0, 64), (48, 112)]
    tiles = [torch.full((1, 1, 1, 1, 512), float(i)) for i in range(2)]
    joined = join_smooth(tiles, places, scale=8, dim=4).flatten()
    assert joined.diff().max() <= 1.001 / 128
    assert joined.diff().min() >= 0


def test_tiles_that_agree_are_not_changed_even_where_three_overlap():
    whole = torch.rand(1, 2, 3, 4, 13)
    places = spans(13, TILING)
    tiles = [whole[..., start:stop] for start, stop in places]
    torch.testing.assert_close(join_smooth(tiles, places, scale=1, dim=4), whole)


def test_published_blend_by_hand():
    # Tile 4, stride 3, blend over 1: the first value of the next tile is replaced by the last of the one before.
    tiles = [[strip(0, 1, 2, 3), strip(13, 14, 15, 16), strip(26, 27)]]
    assert join_published(tiles, 4).flatten().tolist() == [0, 1, 2, 3, 14, 15, 16, 27]
    # Tile 8, stride 6, blend over 2: first all of the old one, then half of each.
    tiles = [[strip(*[0.0] * 8), strip(*[1.0] * 6)]]
    assert join_published(tiles, 8).flatten().tolist() == [0] * 6 + [0, 0.5] + [1] * 4


@torch.no_grad()
def test_published_tiles_keep_the_size_when_one_side_is_short():
    vae, tiling = vae_with_weights(0.02), Tiling(tile=8, overlap=2, blend="published")
    assert encode_tiled(vae, torch.rand(1, 3, 1, 64, 96), None, tiling)[0].shape == (1, 32, 1, 8, 12)


def test_impossible_tilings_are_refused():
    with pytest.raises(ValueError, match="frames are 100x80; the VAE needs multiples of 8"):
        encode_tiled(CausalVAE(SMALL), torch.zeros(1, 3, 1, 80, 100), None, TILING)
    with pytest.raises(UserError, match="tiles of 8 latents can't overlap by 8"):
        Tiling(tile=8, overlap=8)
    with pytest.raises(UserError, match="side that 4 divides, not 10"):
        Tiling(tile=10, overlap=2, blend="published")
