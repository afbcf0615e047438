"""Tiles of a trained VAE: norms and attention see other neighbours in each tile, and yet no border shows."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rayramid.models.sprites.draw import draw_scene
from rayramid.models.sprites.render import render
from rayramid.models.vae.config import SMALL
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.posterior import posterior_kl, posterior_mean, posterior_sample
from rayramid.models.vae.streaming import to_signal
from rayramid.models.vae.tiling import Tiling, decode_tiled, encode_tiled, spans

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# Steps, clips in each, side of their crops in pixels: small crops for speed, large ones for attention.
PHASES = ((250, 8, 32), (100, 2, 128))
RATE = 4e-3
# The default tiles on the 1280 pixels of 768p, and tiles of a quarter of their size on 416.
TILINGS = [(Tiling(), 160), (Tiling(tile=16, overlap=4), 52)]


@pytest.fixture(scope="module")
def trained() -> CausalVAE:
    """A minute of training on sprites: shapes and colours are there, details are not.

    Without the linear skip all of a frame comes from the network, and depends on its tile.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = CausalVAE(replace(SMALL, patch_skip=False))
    videos = torch.cat([to_signal(render(draw_scene(0, index, 128, 128, 9), 9), vae) for index in range(32)])
    optimiser = torch.optim.AdamW(vae.parameters(), RATE)
    fade = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, sum(steps for steps, _, _ in PHASES))
    for steps, number, side in PHASES:
        for _ in range(steps):
            chosen = torch.randint(len(videos), (number,))
            top, left = torch.randint(129 - side, (2,)).tolist()
            frames = videos[chosen, :, :, top : top + side, left : left + side]
            moments, _ = vae.encode(frames)
            decoded, _ = vae.decode(posterior_sample(moments, torch.randn_like(posterior_mean(moments))))
            error = (decoded - frames).square().mean()
            optimiser.zero_grad()
            (error + 1e-4 * posterior_kl(moments).mean() / frames[0].numel()).backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimiser.step()
            fade.step()
    assert error < 0.5 * videos.var()
    return vae.eval()


def videos_of(vae: CausalVAE, side: int, *, upright: bool) -> list[Tensor]:
    """Held-out videos of `side` latents along one axis, 8 along the other."""
    videos = [to_signal(render(draw_scene(1, index, 8 * side, 64, 9), 9), vae) for index in range(6)]
    return [video.transpose(3, 4) for video in videos] if upright else videos


def in_one_piece(vae: CausalVAE, video: Tensor) -> Tensor:
    return vae.decode(posterior_mean(vae.encode(video)[0]))[0]


def in_tiles(vae: CausalVAE, video: Tensor, tiling: Tiling) -> Tensor:
    return decode_tiled(vae, posterior_mean(encode_tiled(vae, video, None, tiling)[0]), None, tiling)[0]


def border_over_interior(tiled: list[Tensor], whole: list[Tensor], borders: list[int], dim: int) -> float:
    """Mean step across `borders` (in latents) over the mean step elsewhere.

    Each is taken as a share of the step at the same places of the undivided frames, so that it does not matter what
    happens to be seen there.
    """
    theirs, ours = (sum(mean_steps(video, dim) for video in videos) for videos in (whole, tiled))
    at_border = torch.zeros(len(ours), dtype=torch.bool)
    at_border[8 * torch.tensor(borders) - 1] = True
    share = ours[at_border].sum() / theirs[at_border].sum()
    return float(share / (ours[~at_border].sum() / theirs[~at_border].sum()))


def mean_steps(video: Tensor, dim: int) -> Tensor:
    """Mean absolute step from each row or column to the next."""
    return video.diff(dim=dim).abs().movedim(dim, 0).flatten(1).mean(1)


@pytest.mark.parametrize(("tiling", "side"), TILINGS)
@pytest.mark.parametrize("dim", [3, 4])
@torch.no_grad()
def test_a_step_across_a_border_is_at_most_a_fifth_larger_than_an_interior_one(trained, tiling, side, dim):
    videos = videos_of(trained, side, upright=dim == 3)
    whole = [in_one_piece(trained, video) for video in videos]
    tiled = [in_tiles(trained, video, tiling) for video in videos]
    places = spans(side, tiling)
    edges = [at for place in places for at in place if 0 < at < side]
    middles = [(stop + start) // 2 for (_, stop), (start, _) in pairwise(places)]
    for borders in (edges, middles):
        assert border_over_interior(tiled, whole, borders, dim) <= 1.2


@pytest.mark.parametrize(("tiling", "side"), TILINGS)
@torch.no_grad()
def test_tiles_without_overlap_would_show_their_borders(trained, tiling, side):
    videos = videos_of(trained, side, upright=False)
    whole = [in_one_piece(trained, video) for video in videos]
    cut = [torch.cat([in_one_piece(trained, tile) for tile in video.split(8 * tiling.tile, 4)], 4) for video in videos]
    assert border_over_interior(cut, whole, list(range(tiling.tile, side, tiling.tile)), 4) > 1.4
