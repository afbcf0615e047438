"""Whole videos through the VAE chunk by chunk, uint8 on the outside: memory does not grow with their length.

Shapes: C channels, T frames (or latents), H height, W width.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.past import StreamState
from rayramid.models.vae.posterior import posterior_mean
from rayramid.models.vae.tiling import Tiling, decode_tiled, encode_tiled

Frames = NDArray[np.uint8]


@torch.no_grad()
def encode_video(vae: CausalVAE, chunks: Iterable[Frames], step: int = 8, tiling: Tiling | None = None) -> Tensor:
    """Raw latents (posterior means) of a video of 1 + 8n frames, [C, 1 + n, H/8, W/8], float32 on the CPU.

    Args:
        vae: runs where its weights are, in their dtype.
        chunks: consecutive uint8 frames [T, H, W, 3], any number at a time.
        step: frames per forward, a multiple of 8; the first forward takes one more.
        tiling: encode in spatial tiles of this form.

    Raises:
        ValueError: the number of frames is not 1 + 8n, or the size no multiple of 8.
    """
    latents, state = [], None
    for frames in regroup(chunks, step):
        x = to_signal(frames, vae)
        moments, state = encode_tiled(vae, x, state, tiling) if tiling else vae.encode(x, state)
        latents.append(posterior_mean(moments)[0].float().cpu())
    if not latents:
        raise ValueError("a video without frames can't be encoded")
    return torch.cat(latents, dim=1)


@torch.no_grad()
def decode_chunk(
    vae: CausalVAE, latent_CTHW: Tensor, state: StreamState | None = None, tiling: Tiling | None = None
) -> tuple[Frames, StreamState]:
    """Frames of a video's next raw latents, uint8 [8·T, H, W, 3] (7 fewer when `state` is None), and the new state."""
    weight = next(vae.parameters())
    z = latent_CTHW[None].to(weight)
    frames, state = decode_tiled(vae, z, state, tiling) if tiling else vae.decode(z, state)
    return to_pixels(frames[0]), state


def decode_video(vae: CausalVAE, latents_CTHW: Tensor, step: int = 1, tiling: Tiling | None = None) -> Iterator[Frames]:
    """Frames of a whole video's raw latents, uint8 [T, H, W, 3], from `step` latents at a time."""
    state = None
    for latent_CTHW in latents_CTHW.split(step, dim=1):
        frames, state = decode_chunk(vae, latent_CTHW, state, tiling)
        yield frames


def regroup(chunks: Iterable[Frames], step: int) -> Iterator[Frames]:
    """Cut a sequence of frames into 1 + `step` frames, then `step` at a time; what is left at the end comes last."""
    wanted, waiting, count = step + 1, [], 0
    for chunk in chunks:
        waiting.append(chunk)
        count += len(chunk)
        while count >= wanted:
            joined = np.concatenate(waiting)
            yield joined[:wanted]
            waiting, count = [joined[wanted:]], count - wanted
            wanted = step
    if count:
        yield np.concatenate(waiting)


def to_signal(frames_THWC: Frames, vae: CausalVAE) -> Tensor:
    """uint8 [T, H, W, 3] to [1, 3, T, H, W] in [-1, 1], with the dtype and device of the VAE's weights."""
    weight = next(vae.parameters())
    pixels = torch.from_numpy(frames_THWC).to(weight.device).permute(3, 0, 1, 2)[None]
    return (pixels.to(torch.float32) / 127.5 - 1).to(weight.dtype)


def to_pixels(frames_3THW: Tensor) -> Frames:
    """[3, T, H, W] in [-1, 1] to the nearest uint8 [T, H, W, 3]."""
    pixels = (frames_3THW.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 3, 0).contiguous().cpu().numpy()
