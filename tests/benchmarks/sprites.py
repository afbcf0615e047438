"""What the sprites world costs on one core of this machine: `python tests/benchmarks/sprites.py`. Under a minute.

Prints one JSON line per measure; `ratio` says how many times better `ours` is than `other`. Times are of the processor,
so that other load on the machine does not count.
- sprites_draw: seconds to draw a clip of 25 frames of 128x128, against decoding it from an mp4 file.
- sprites_encode: seconds of the encode job for such a clip, drawing included, against the VAE (PCA) alone.
- sprites_judge: seconds to judge such a clip, against drawing it.
- encode_alone: seconds of the VAE for one clip, against its share when two are encoded together.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rayramid.models.media.read import read_frames
from rayramid.models.media.write import write_mp4
from rayramid.models.sprites.clip import SpritesClip
from rayramid.models.sprites.judge.verdict import judge
from rayramid.models.vae.io import fingerprint, save_vae
from rayramid.models.vae.pca import pca_vae
from rayramid.models.vae.streaming import encode_video, to_signal
from rayramid.pipelines.encode import EncodeJob

CLIPS = [SpritesClip(7, index, 128, 128, 25, 24.0) for index in range(12)]


def report(measure: str, ours: float, other: float) -> None:
    fields = {"measure": measure, "ratio": round(other / ours, 3), "ours": round(ours, 5), "other": round(other, 5)}
    sys.stdout.write(json.dumps({**fields, "unit": "s"}) + "\n")
    sys.stdout.flush()


def seconds(function: Callable[[int], object]) -> float:
    """Processor time per clip, the second time."""
    function(0)
    begun = time.process_time()
    for number in range(len(CLIPS)):
        function(number)
    return (time.process_time() - begun) / len(CLIPS)


def draw(clip: SpritesClip) -> np.ndarray:
    return np.concatenate(list(clip.read()))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for number, clip in enumerate(CLIPS):
        write_mp4(folder / f"{number}.mp4", draw(clip), clip.fps, crf=6)
    drawing = seconds(lambda number: draw(CLIPS[number]))
    report("sprites_draw", drawing, seconds(lambda number: list(read_frames(folder / f"{number}.mp4"))))

    frames = [draw(clip) for clip in CLIPS]
    vae = pca_vae(frames)
    save_vae(str(folder / "vae"), vae)
    job = EncodeJob(str(folder / "vae"), fingerprint(vae), deadline_s=30)
    rows = [
        {"uri": clip.uri, "kind": "video", "start_ms": 0, "end_ms": clip.probe.duration_ms, "bucket": "128x128x4"}
        | {"width": 128, "height": 128, "frames": 25, "fps": 24.0}
        | dict.fromkeys(("latent_id", "clip_id", "source_id"), str(number))
        for number, clip in enumerate(CLIPS)
    ]
    report(
        "sprites_encode",
        seconds(lambda number: job([rows[number]])),
        seconds(lambda number: encode_video(vae, [frames[number]])),
    )
    report("sprites_judge", seconds(lambda number: judge(frames[number], CLIPS[number].scene.demand)), drawing)

    signals = [to_signal(clip_frames[:9], vae) for clip_frames in frames]
    with torch.no_grad():
        alone = seconds(lambda number: vae.encode(signals[number]))
        together = seconds(lambda number: vae.encode(torch.cat([signals[number], signals[number - 1]])))
    report("encode_alone", alone, together / 2)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
