"""What the ways to hold a DiT for sampling cost and save, measured here: `python tests/benchmarks/holding.py [FILE]`.

Each way makes a video of three units by the shipped model, on one thread, and is compared with weights in fp32. Prints
one JSON line per measure; `ratio` is `other` / `ours`. Writes all of them to FILE, with what made them.
- <way>_seconds: of CPU time in one forward on the average; of wall time for `ranks`, whose processes work side by side.
- <way>_bytes: weights that the device holds at a time; of one rank for `ranks`.
- <way>_difference: relative RMS of the latents; `other` is 1, that of another video.
Ways: bfloat16, int8, int8_bfloat16, offload, ranks (two processes).
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from rayramid.models.card import load_card
from rayramid.models.checkpoint import pyramid_of
from rayramid.models.crew import Crew
from rayramid.models.dit.model import DiT
from rayramid.models.quantise import weight_bytes
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.request import Request
from rayramid.models.stores.shipped import SPRITES
from rayramid.models.text import TextEmbedding
from rayramid.models.transformer import Holding
from rayramid.platform.evaluation.record import made_by

CARD = load_card(SPRITES)
WAYS = {
    "bfloat16": Holding(dtype=torch.bfloat16),
    "int8": Holding(int8=True),
    "int8_bfloat16": Holding(dtype=torch.bfloat16, int8=True),
    "offload": Holding(offload=True),
    "ranks": Holding(),
}
REPEATS = 3
# What a difference of nothing is called, so that it has a ratio.
EQUAL = 1e-12


def request(seed: int) -> Request:
    """A guided video of three units in the model's own size."""
    draws = torch.Generator().manual_seed(0)
    prompt, negative = (
        TextEmbedding(
            torch.randn(length, CARD.dit["text_dim"], generator=draws),
            torch.randn(CARD.dit["pooled_dim"], generator=draws),
        )
        for length in (16, 1)
    )
    return Request(
        prompts=prompt, negative=negative, height=16, width=16, latents=3, steps=CARD.steps, seed=seed, guidance=2.0
    )


def made(dit: DiT, seed: int = 1) -> tuple[Tensor, int]:
    """Latents, and how many forwards they took."""
    sampler, forwards = Sampler(dit, pyramid_of(CARD)), 0
    session = sampler.start(request(seed))
    while not session.done:
        sampler.step([session])
        forwards += 1
    return session.latents_CTHW, forwards


def seconds(dit: DiT, clock: Callable[[], float]) -> float:
    """The least of a few, of one forward."""
    best = float("inf")
    for _ in range(REPEATS):
        begun = clock()
        _, forwards = made(dit)
        best = min(best, (clock() - begun) / forwards)
    return best


def resident(dit: DiT, holding: Holding) -> int:
    """Bytes of weights on the device at a time."""
    total, blocks = weight_bytes(dit), [weight_bytes(block) for block in dit.blocks]
    return total - sum(blocks) + max(blocks) if holding.offload else total


@contextmanager
def held(way: str) -> Iterator[DiT]:
    """The DiT of a way."""
    if way == "ranks":
        crew = Crew(WAYS[way], ranks=2)
        try:
            yield crew.load(SPRITES, CARD)
        finally:
            crew.close()
    else:
        yield WAYS[way].load(SPRITES, CARD)


def measures() -> Iterator[dict[str, object]]:
    """Of all ways."""
    plain = Holding().load(SPRITES, CARD)
    expected, another = made(plain)[0], made(plain, seed=2)[0]
    scale = (another - expected).norm()
    for way in WAYS:
        clock = time.monotonic if way == "ranks" else time.process_time
        other = seconds(plain, clock)
        with held(way) as dit:
            latents = made(dit)[0]
            yield measure(f"{way}_seconds", seconds(dit, clock), other, "s")
            yield measure(f"{way}_bytes", resident(dit, WAYS[way]), weight_bytes(plain), "B")
            yield measure(f"{way}_difference", max(float((latents - expected).norm() / scale), EQUAL), 1.0, "")


def measure(name: str, ours: float, other: float, unit: str) -> dict[str, object]:
    """A line."""
    return {"measure": name, "ratio": other / ours, "ours": ours, "other": other, "unit": unit}


def main(output: Path | None) -> None:
    """Measure, and write to a file what was measured if one is given."""
    torch.set_num_threads(1)
    found = []
    for line in measures():
        print(json.dumps(line), flush=True)
        found.append(line)
    if output:
        command = f"python tests/benchmarks/holding.py {output}"
        output.write_text(
            json.dumps(made_by(command) | {"seed": 1, "measures": found}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
