"""A codec from a handful of clips in seconds: the patch skip of a VAE, fitted in closed form.

The encoder takes the leading principal components of patches, of first frames and of later 8-frame patches apart.
The decoder is the least-squares map from a latent and its 8 neighbours to the patch. A component of standard
deviation s is divided by sqrt(s): for a generator that makes equal errors in all channels, this gives the smallest
error in pixels, and it keeps coarse before fine.
Shapes: N patches, P values of a patch, C latent channels, D decoder inputs (9C and a constant), T time, h w latents.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rayramid.models.errors import UserError
from rayramid.models.vae.config import SMALL, VAEConfig
from rayramid.models.vae.layers import fold_patches
from rayramid.models.vae.model import CausalVAE

RIDGE = 1e-3
"""Regularisation of the decoder, as a share of the mean power of its inputs."""
PATCHES_PER_VIEW = 8192
"""Of larger clips, principal components come from a random part of the patches."""

Views = Callable[[], Iterator[Tensor]]
"""Starts a pass over the patches [T, P, h, w] of all clips."""


def pca_vae(clips: Iterable[NDArray[np.uint8]], config: VAEConfig = SMALL) -> CausalVAE:
    """A fresh VAE (network seeded, silent) whose patch skip is fitted to `clips`; see `fit_pca`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = CausalVAE(config)
    fit_pca(vae, clips)
    return vae.eval()


@torch.no_grad()
def fit_pca(vae: CausalVAE, clips: Iterable[NDArray[np.uint8]]) -> None:
    """Set the patch skip of `vae` and the shift and scale of its latents, in place.

    Args:
        vae: untrained, on the CPU, its configuration with `patch_skip`.
        clips: uint8 frames [T, H, W, 3] of one video each, any sizes; all are kept in memory meanwhile.

    Raises:
        UserError: no clip has the frames of a second latent, or the sides of one patch.
    """
    skip, config = vae.patch_skip, vae.config
    if skip is None:
        raise UserError("a codec can only be fitted to a VAE with patch_skip")
    clips = [clip for clip in clips if min(clip.shape[1:3]) >= skip.side]
    if all(len(clip) <= skip.frames for clip in clips):
        raise UserError(f"to fit a VAE takes a clip of at least {skip.frames + 1} frames of {skip.side} pixels")

    def images() -> Iterator[Tensor]:
        for clip in clips:
            for view_3THW in _views(clip, skip.side):
                yield fold_patches(view_3THW[None], skip.side)[0].transpose(0, 1)

    def videos() -> Iterator[Tensor]:
        for clip in clips:
            for view_3THW in _views(clip, skip.side):
                later = (view_3THW.shape[1] - 1) // skip.frames * skip.frames
                if later:
                    yield skip.fold_video(view_3THW[None, :, 1 : 1 + later])[0].transpose(0, 1)

    image_shift, image_scale = _fit(skip.image_encoder, skip.image_decoder, images)
    video_shift, video_scale = _fit(skip.video_encoder, skip.video_decoder, videos)
    vae.config = replace(
        config, image_shift=image_shift, image_scale=image_scale, video_shift=video_shift, video_scale=video_scale
    )


def _views(clip: NDArray[np.uint8], side: int) -> Iterator[Tensor]:
    """The clip on its own grid of patches and on one moved by half a patch: [3, T, H, W] in [-1, 1]."""
    for offset in (0, side // 2):
        height, width = ((length - offset) // side * side for length in clip.shape[1:3])
        if height and width:
            cut = torch.from_numpy(clip[:, offset : offset + height, offset : offset + width])
            yield cut.permute(3, 0, 1, 2).float() / 127.5 - 1


def _fit(encoder: nn.Conv2d, decoder: nn.Conv2d, views: Views) -> tuple[float, float]:
    """Fit one of the two codecs; returns shift and scale of its latents."""
    assert encoder.bias is not None
    assert decoder.bias is not None
    mean_P, components_PC, deviations_C = _principal_components(views, encoder.in_channels, encoder.out_channels)
    balanced_PC = components_PC / deviations_C.sqrt()
    encoder.weight.copy_(balanced_PC.mT[:, :, None, None])
    encoder.bias.copy_(-mean_P @ balanced_PC)

    encode = partial(F.conv2d, weight=encoder.weight.float(), bias=encoder.bias.float())
    inputs = 9 * decoder.in_channels + 1
    gram_DD = torch.zeros(inputs, inputs, dtype=torch.float64)
    cross_DP = torch.zeros(inputs, decoder.out_channels, dtype=torch.float64)
    count, total, squares = 0, 0.0, 0.0
    for patches_TPhw in views():
        latents_TChw = encode(patches_TPhw)
        count += latents_TChw.numel()
        total += float(latents_TChw.double().sum())
        squares += float(latents_TChw.double().square().sum())
        # The constant input gives the bias.
        inputs_ND = F.pad(_rows(F.unfold(latents_TChw, 3, padding=1)), (0, 1), value=1.0)
        gram_DD += inputs_ND.mT @ inputs_ND
        cross_DP += inputs_ND.mT @ _rows(patches_TPhw.flatten(2))
    ridge_D = torch.full((inputs,), RIDGE * float(gram_DD.diagonal()[:-1].mean()), dtype=torch.float64)
    ridge_D[-1] = 0.0
    solution_DP = torch.linalg.solve(gram_DD + ridge_D.diag(), cross_DP)
    decoder.weight.copy_(solution_DP[:-1].mT.reshape(decoder.weight.shape))
    decoder.bias.copy_(solution_DP[-1])
    shift = total / count
    return shift, (squares / count - shift**2) ** -0.5


def _principal_components(views: Views, values: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [P], leading components as columns [P, C], their standard deviations [C], largest first; in float64."""
    count = 0
    total_P = torch.zeros(values, dtype=torch.float64)
    products_PP = torch.zeros(values, values, dtype=torch.float64)
    chance = torch.Generator().manual_seed(0)
    for patches_TPhw in views():
        rows_NP = _rows(patches_TPhw.flatten(2))
        if len(rows_NP) > PATCHES_PER_VIEW:
            rows_NP = rows_NP[torch.randperm(len(rows_NP), generator=chance)[:PATCHES_PER_VIEW]]
        count += len(rows_NP)
        total_P += rows_NP.sum(0)
        products_PP += rows_NP.mT @ rows_NP
    mean_P = total_P / count
    variances, vectors = torch.linalg.eigh(products_PP / count - mean_P.outer(mean_P))
    vectors_PC = vectors[:, -number:].flip(1)
    # The sign of an eigenvector is arbitrary: make its largest entry positive.
    largest = vectors_PC.gather(0, vectors_PC.abs().argmax(0, keepdim=True))
    deviations_C = variances[-number:].flip(0).clamp_min(1e-6 * float(variances[-1])).sqrt()
    return mean_P, vectors_PC * largest.sign(), deviations_C


def _rows(values_TDN: Tensor) -> Tensor:
    """[T, D, n] to one row for each of the T·n places."""
    return values_TDN.transpose(1, 2).flatten(0, 1)
