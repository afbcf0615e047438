"""How well the averaged weights encode and decode held-out clips, frame position by frame position.

Every eighth frame may be worse than the others, when the VAE was trained on too few latents at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.perceptual import Perceptual
from rayramid.models.vae.quality import WINDOW, psnr, ssim
from rayramid.models.vae.streaming import Frames, decode_video, encode_video, to_signal
from rayramid.pipelines.job import Row
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.vae.clips import length, readable
from rayramid.platform.training.vae.spec import Held, Phase


@dataclass(frozen=True)
class Examination:
    """The clips to examine, and what they are.

    Attributes:
        split: `val`, or `train` where nothing is held out.
        clips: rows, in the order of their ids; images where the phase has no videos.
        frames: of each.
    """

    split: Literal["val", "train"]
    clips: tuple[Row, ...]
    frames: tuple[int, ...]


def examination(clips: pa.Table, phase: Phase, settings: Held, temporal_ratio: int) -> Examination:
    """The clips that are examined: the first of the split `val` by id, or of `train` where that has none."""
    splits: tuple[Literal["val", "train"], ...] = ("val", "train")
    for split in splits:
        found = readable(clips, phase, split)
        rows = tuple((found.videos or found.images)[: settings.clips])
        if rows:
            break
    wanted = settings.frames or phase.frames
    longest = [1 if row["kind"] == "image" else min(wanted, length(row, phase)) for row in rows]
    return Examination(split, rows, tuple(frames - (frames - 1) % temporal_ratio for frames in longest))


def measure(vae: CausalVAE, perceptual: Perceptual | None, clip_THWC: Frames) -> dict[str, NDArray[np.float64]]:
    """PSNR, SSIM and LPIPS (where there is one) of each frame after encoding and decoding, [T] each."""
    decoded_THWC = np.concatenate(list(decode_video(vae, encode_video(vae, [clip_THWC]))))
    found = {"psnr": psnr(decoded_THWC, clip_THWC)}
    if min(clip_THWC.shape[1:3]) >= WINDOW:
        found["ssim"] = ssim(decoded_THWC, clip_THWC)
    if perceptual is not None:
        distances = perceptual(to_signal(decoded_THWC, vae), to_signal(clip_THWC, vae))
        found["lpips"] = distances[0].double().cpu().numpy()
    return found


def summary(measures: Iterable[dict[str, NDArray[np.float64]]], split: str, ranks: Ranks) -> dict[str, object]:
    """Means over all frames of all ranks' clips, and over the frames at each position. A collective.

    PSNR is the mean of the frames' PSNR.
    """
    gathered = [clip for part in ranks.gather(list(measures)) for clip in part]
    record: dict[str, object] = {"split": split, "clips": len(gathered)}
    for name in ("psnr", "ssim", "lpips"):
        values = [clip[name] for clip in gathered if name in clip]
        if values:
            record[name] = float(np.concatenate(values).mean())
            longest = max(map(len, values))
            by_frame = [float(np.mean([clip[t] for clip in values if t < len(clip)])) for t in range(longest)]
            record[f"{name}_by_frame"] = {str(t): value for t, value in enumerate(by_frame)}
    return record


def centre(clip_THWC: Frames, phase: Phase) -> Frames:
    """The middle of the frames, of the phase's size."""
    top, left = (clip_THWC.shape[1] - phase.height) // 2, (clip_THWC.shape[2] - phase.width) // 2
    return clip_THWC[:, top : top + phase.height, left : left + phase.width]


@torch.no_grad()
def examine(
    vae: CausalVAE, perceptual: Perceptual | None, clips: Iterable[Frames]
) -> list[dict[str, NDArray[np.float64]]]:
    """`measure` of some clips."""
    return [measure(vae, perceptual, clip) for clip in clips]
