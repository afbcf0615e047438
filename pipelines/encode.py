"""Job 5: VAE latents of kept clips, raw posterior means in bf16.

Shape letters: C channels, T latents in time, H W latent grid; frames are [T, H, W, 3] pixels.
"""

import math
from collections.abc import Iterator, Sequence

import pyarrow as pa
import torch
from torch import Tensor

from rayramid.models.media.errors import DecodeError
from rayramid.models.vae.io import fingerprint, load_vae
from rayramid.models.vae.streaming import encode_video
from rayramid.pipelines.buckets import Bucket
from rayramid.pipelines.frames import Frames, SourceFrames
from rayramid.pipelines.job import Row
from rayramid.pipelines.latents import LATENT_SCHEMA
from rayramid.pipelines.tensors import bf16_bytes

IMAGES_PER_GROUP = 32


class EncodeJob:
    """Rows are clips with their bucket; a result row holds one latent. A foreign VAE is refused by name."""

    columns_out: pa.Schema = LATENT_SCHEMA
    batch = 1
    facts: tuple[str, ...] = (
        *("latent_id", "vae_fingerprint", "latent_dtype", "width", "height", "frames", "fps"),
        *("first_mean", "first_std", "later_mean", "later_std"),
    )

    def __init__(self, vae_url: str, vae_fingerprint: str, deadline_s: float) -> None:
        vae = load_vae(vae_url)
        # Taken before the model moves: the fingerprint is of the stored weights.
        found = fingerprint(vae)
        if found != vae_fingerprint:
            raise ValueError(f"{vae_url}: this VAE is {found}, the plan was made for {vae_fingerprint}")
        self._fingerprint = found
        self._vae = vae.to("cuda") if torch.cuda.is_available() else vae.float()
        self._frames = SourceFrames(deadline_s)

    def rows_per_group(self, row: Row) -> int:
        """One video is one ranged read; images are small."""
        return IMAGES_PER_GROUP if row["frames"] == 1 else 1

    def __call__(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The latent of each clip."""
        return [[self._latent(row)] for row in rows]

    def _latent(self, row: Row) -> Row:
        latent_CTHW = encode_video(self._vae, clip_frames(self._frames, row))
        bucket = Bucket(row["height"], row["width"], row["frames"])
        if latent_CTHW.shape[1:] != bucket.grid:
            raise ValueError(f"the VAE gave {tuple(latent_CTHW.shape[1:])} latents where {bucket.grid} belong")
        if not torch.isfinite(latent_CTHW).all():
            raise ValueError("the VAE gave values that are not finite")
        return {
            **{
                name: row[name] for name in ("latent_id", "clip_id", "source_id", "uri", "start_ms", "end_ms", "bucket")
            },
            **{name: row[name] for name in ("width", "height", "frames", "fps")},
            "latent": bf16_bytes(latent_CTHW),
            "latent_shape": list(latent_CTHW.shape),
            "latent_dtype": "bf16",
            "vae_fingerprint": self._fingerprint,
            **_statistics("first", latent_CTHW[:, :1]),
            **_statistics("later", latent_CTHW[:, 1:]),
        }


def clip_frames(frames: SourceFrames, row: Row) -> Iterator[Frames]:
    """Exactly `row["frames"]` frames of a clip from its start, at its bucket's size and frame rate, in windows.

    Raises:
        DecodeError: the file holds fewer.
    """
    wanted, seen = row["frames"], 0
    # One frame more than needed, so that rounding at the range's end never loses the last one.
    end_ms = min(row["end_ms"], row["start_ms"] + math.ceil((wanted + 1) * 1000 / row["fps"]))
    for window_THWC in frames.read(row, (row["height"], row["width"]), fps=row["fps"], end_ms=end_ms):
        window = window_THWC[: wanted - seen]
        seen += len(window)
        if len(window):
            yield window
    if seen < wanted:
        raise DecodeError(row["uri"], f"{seen} of {wanted} frames")


def _statistics(which: str, latent_CTHW: Tensor) -> dict[str, float | None]:
    if latent_CTHW.numel() == 0:
        return {f"{which}_mean": None, f"{which}_std": None}
    return {f"{which}_mean": float(latent_CTHW.mean()), f"{which}_std": float(latent_CTHW.std(correction=0))}
