"""What the model core saves, measured on this machine: `python tests/benchmarks/models.py`, a few minutes.

Prints one JSON line per measure: `ratio` is `other` / `ours`, both in seconds of one CPU thread (so that other load on
the machine does not count), or in bytes.
- block_noise: the correlated noise of one jump, against one draw per 2x2 block as the published code does it.
- shared_context_k<k>: a training forward and backward of all stages of k consecutive units in one shared-context row,
  against one row per target, each with its own text and history; all rows of either way run in one forward.
- cached_sampling_<n>: a video of n units, against the same steps with the text and history recomputed in each.
- denormals_zero: the GELU of numbers as large as a trained model's, with denormal numbers kept as torch does by itself.
- streaming_decode: 57 frames decoded latent by latent, as serving does it, against all at once.
- streaming_decode_memory: peak bytes above those before, of 241 frames latent by latent against 25 frames (on Linux).
"""

import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.history import Span, context_of, training_rows
from rayramid.models.pyramid import Pyramid, block_noise, down
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.request import Request
from rayramid.models.sequence import Clip, Piece, Prompt, assemble
from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.streaming import decode_video

HEIGHT, WIDTH = 24, 40
# Steps per stage of later units in the published settings.
STEPS = 10
CONFIG = DiTConfig(
    heads=4,
    head_dim=64,
    double_blocks=1,
    single_blocks=2,
    text_dim=64,
    pooled_dim=64,
    rope_axes=(16, 24, 24),
)
PROMPT = Prompt(torch.randn(32, 64), torch.randn(64))


def seconds(ours: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least time of each, measured in turns."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        for way, run in enumerate((ours, other)):
            begun = time.process_time()
            run()
            best[way] = min(best[way], time.process_time() - begun)
    return best[0], best[1]


def report(measure: str, ours: float, other: float, unit: str = "s") -> None:
    line = {"measure": measure, "ratio": round(other / ours, 3), "ours": ours, "other": other, "unit": unit}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def measure_block_noise() -> None:
    gamma, shape = 1 / 3, (16, 1, 48, 80)
    # A factor of the singular covariance: its eigenvectors, scaled.
    values, vectors = torch.linalg.eigh((1 + gamma) * torch.eye(4) - gamma * torch.ones(4, 4))
    factor = vectors * values.clamp_min(0).sqrt()

    def per_block() -> Tensor:
        blocks = torch.stack([factor @ torch.randn(4) for _ in range(16 * 24 * 40)])
        return blocks.view(16, 1, 24, 40, 2, 2).transpose(-3, -2).reshape(shape)

    report("block_noise", *seconds(lambda: block_noise(torch.randn(shape), gamma), per_block, repeats=3))


def measure_shared_context(units: int = 16) -> None:
    dit = DiT(CONFIG)

    def piece(span: Span) -> Piece:
        shape = (CONFIG.latent_channels, span.stop - span.start, HEIGHT >> span.level, WIDTH >> span.level)
        return Piece(span.kind, span.unit, span.level, torch.randn(shape), 0.0, span.start)

    def train(rows: list[list[Span]]) -> None:
        velocities = dit(assemble([Clip((PROMPT,), tuple(map(piece, row))) for row in rows], CONFIG))
        torch.stack([velocity.square().mean() for velocity in velocities]).sum().backward()

    def both(k: int) -> tuple[float, float]:
        first = (units - k) // 2
        shared, separate = (
            training_rows(units, first, k, CONFIG.levels, CONFIG.frames_per_unit, shared=way) for way in (True, False)
        )
        return seconds(lambda: train(shared), lambda: train(separate), repeats=2)

    for name, k in (("1", 1), ("2", 2), ("4", 4), ("all", units)):
        report(f"shared_context_k{name}", *both(k))


def recompute(dit: DiT, pyramid: Pyramid, request: Request) -> list[Tensor]:
    """The sampler without a cache: each step carries the text and exactly the history that its target sees."""
    finished: list[Tensor] = []
    for unit in range(request.latents):
        x = torch.empty(0)
        for level in reversed(range(pyramid.levels)):
            noise = torch.randn(CONFIG.latent_channels, 1, HEIGHT >> level, WIDTH >> level)
            x = noise if level == pyramid.levels - 1 else pyramid.jump(x, noise, level)
            history = [
                Piece("context", u, k, down(finished[u], k), 0.0, u)
                for u, k in context_of(unit, level, pyramid.levels, target=True)
            ]
            for now, then in itertools.pairwise(pyramid.steps(STEPS)):
                told = pyramid.timestep(level, torch.tensor(now)).item()
                clip = Clip((PROMPT,), (*history, Piece("target", unit, level, x, told, unit)))
                x = x + (then - now) * dit(assemble([clip], CONFIG))[0]
        finished.append(x)
    return finished


def measure_cached_sampling() -> None:
    dit, pyramid = DiT(CONFIG).eval(), Pyramid(CONFIG.levels)

    def request(units: int) -> Request:
        counts = (STEPS,) * CONFIG.levels
        return Request(Text(), HEIGHT, WIDTH, units, (counts, counts), guidance=0.0, video_guidance=0.0)

    @torch.no_grad()
    def other(units: int) -> None:
        recompute(dit, pyramid, request(units))

    def ours(units: int) -> None:
        list(Sampler(dit, pyramid).generate(request(units)))

    ours(1)
    for units in (8, 31):
        report(f"cached_sampling_{units}", *seconds(partial(ours, units), partial(other, units), repeats=1))


def measure_denormals_zero() -> None:
    hidden = torch.randn(2048, 640, generator=torch.Generator().manual_seed(0)) * 10

    def gelu(*, zero: bool) -> None:
        torch.set_flush_denormal(zero)
        F.gelu(hidden, approximate="tanh")

    try:
        report("denormals_zero", *seconds(partial(gelu, zero=True), partial(gelu, zero=False), 5))
    finally:
        torch.set_flush_denormal(False)


def small_vae(channels: int) -> CausalVAE:
    """The published architecture with fewer channels and layers."""
    config = VAEConfig(
        encoder_channels=(channels,) * 4,
        encoder_layers=(1,) * 4,
        decoder_channels=(channels,) * 4,
        decoder_layers=(1,) * 4,
        norm_groups=4,
    )
    return CausalVAE(config).eval()


def decode(vae: CausalVAE, latents: int, step: int) -> None:
    for _ in decode_video(vae, torch.zeros(16, latents, 12, 12), step):
        pass


def measure_streaming_decode() -> None:
    # With fewer channels or pixels PyTorch's CPU convolutions leave oneDNN for one clip of few frames, and take four
    # times as long; the published VAE is far from that.
    vae, latents = small_vae(64), 8
    report("streaming_decode", *seconds(lambda: decode(vae, latents, 1), lambda: decode(vae, latents, latents), 1))


def peak_of_decoding(latents: int, answer: "Queue[int]") -> None:
    torch.set_num_threads(1)
    vae = small_vae(16)
    before = peak_bytes()
    decode(vae, latents, 1)
    answer.put(peak_bytes() - before)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measure_streaming_decode_memory() -> None:
    def measured(latents: int) -> int:
        # A fresh process each: the peak of a process never falls.
        answer: Queue[int] = spawning.Queue()
        process = spawning.Process(target=peak_of_decoding, args=(latents, answer))
        process.start()
        peak = answer.get()
        process.join()
        return peak

    spawning = multiprocessing.get_context("spawn")
    report("streaming_decode_memory", measured(31), measured(4), "B")


class Text:
    """The prompt as a request takes it."""

    tokens_LD = PROMPT.tokens_LD
    pooled_P = PROMPT.pooled_P


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    measure_block_noise()
    measure_shared_context()
    measure_cached_sampling()
    measure_denormals_zero()
    measure_streaming_decode()
    measure_streaming_decode_memory()
