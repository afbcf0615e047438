"""What training saves, measured on this machine: `python tests/benchmarks/training.py`, some minutes.

Prints one JSON line per measure; `ratio` says how many times better `ours` is than `other`.
- shared_context_<tokens|flops>_<384p|768p>_k<k>: of a supervised target of 10 seconds with sd3-2b, all stages of k
  consecutive units in one row, against a row of its own for each target, as published: with a mask, so that all pairs
  of a row are multiplied. `flops_sparse` is against a kernel, which the published code lacks, that multiplies only
  those that the mask leaves. Counted. Goals with all units: 2 for tokens, 1.85 for FLOPs.
- shared_context_seconds_k<k>: the same targets of 10 seconds trained with a small model on small latents; the rows of
  either way in packs of one token budget. Seconds of one CPU thread, so that other load on the machine does not count.
- packed_fill: tokens by token budget of the planned bins (goal .98, budget 8 times the largest item), against batches
  of 4 in stream order, padded to the longest. Images and videos of 2, 5 and 10 seconds at 384p and 768p. Counted.
- packed_seconds: a small model on such a mixture of small latents, in packs, against padded batches of 4.
- balance_64_ranks: mean by largest operations of 64 ranks, planned and dealt (goal .99), against first-fit bins dealt
  round robin. Counted, as above.
- waiting: share of a run's time in which it waits for data (goal .01), read ahead, against read when it is needed.
"""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from latent_dataset import write_dataset

from rayramid.models.cost import plan_cost
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.flops import TRAINING_FACTOR, forward_flops
from rayramid.models.objective import TrainingClip, objective, training_pack
from rayramid.models.presets import preset
from rayramid.models.pyramid import Pyramid
from rayramid.models.sequence import training_segments
from rayramid.platform.training.data import Datasets, index_of
from rayramid.platform.training.draw import permutation
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.index import Index
from rayramid.platform.training.late import NothingBeside
from rayramid.platform.training.loop import Run
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.outline import OutlinedDataset
from rayramid.platform.training.packing import first_fit_decreasing
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.plan import deal, phase_seed, steps
from rayramid.platform.training.run import settle
from rayramid.platform.training.spec.curriculum import Outline, Phase
from rayramid.platform.training.spec.train import TrainSpec
from rayramid.platform.training.visits import Stream

Thing = TypeVar("Thing")

TEN_SECONDS = 31
RANKS = 64
SMALL = DiTConfig(
    heads=2, head_dim=64, double_blocks=1, single_blocks=1, text_dim=64, pooled_dim=64, rope_axes=(16, 24, 24)
)
CORPUS = {
    "384x640x1": 60_000,
    "768x1280x1": 20_000,
    "384x640x7": 18_000,
    "384x640x16": 18_000,
    "384x640x31": 18_000,
    "768x1280x16": 4_000,
    "768x1280x31": 4_000,
}


def report(measure: str, ratio: float, ours: float, other: float, unit: str) -> None:
    line = {"measure": measure, "ratio": round(ratio, 3), "ours": ours, "other": other, "unit": unit}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def seconds(run: Callable[[], object]) -> float:
    """Least CPU time of two runs."""
    taken = []
    for _ in range(2):
        begun = time.process_time()
        run()
        taken.append(time.process_time() - begun)
    return min(taken)


def clip(grid: tuple[int, int, int], first: int, units: int, text: int = 32) -> TrainingClip:
    return TrainingClip(
        torch.randn(SMALL.latent_channels, *grid), torch.randn(text, 64), torch.randn(64), first, units, key=0
    )


def train(config: DiTConfig, packs: Iterable[Sequence[TrainingClip]]) -> None:
    """Gradients of all packs, one after the other."""
    dit = DiT(config)
    for clips in packs:
        pack, targets = training_pack(clips, config, Pyramid(config.levels), seed=0)
        objective(dit(pack), targets).total().backward()


def count_shared_context() -> None:
    config, text = preset("sd3-2b"), 128
    official = replace(config, conditioning="official")
    for name, grid in (("384p", (TEN_SECONDS, 48, 80)), ("768p", (TEN_SECONDS, 96, 160))):
        apart = [training_segments(official, grid, text, unit, 1) for unit in range(TEN_SECONDS)]
        tokens = [sum(s.length for s in unit) for unit in apart]
        dense = [forward_flops(replace(official, causal=False), unit) for unit in apart]
        sparse = [forward_flops(official, unit) for unit in apart]
        for row in plan_cost("sd3-2b", grid[2] * 8, grid[1] * 8, 8 * TEN_SECONDS - 7, text_tokens=text).training:
            k, ours = row.units_per_clip, row.flops_per_target
            ending = f"{name}_k{'all' if k == TEN_SECONDS else k}"
            other = in_windows(tokens, k) / config.levels
            few = row.tokens_per_target
            report(f"shared_context_tokens_{ending}", other / few, few, other, "tokens")
            for what, flops in (("flops", dense), ("flops_sparse", sparse)):
                other = TRAINING_FACTOR * in_windows(flops, k) / config.levels
                report(f"shared_context_{what}_{ending}", other / ours, ours, other, "FLOP")


def in_windows(of_unit: Sequence[int], k: int) -> float:
    """Mean over the units of all windows of k units."""
    return fmean(of for first in range(len(of_unit) - k + 1) for of in of_unit[first : first + k])


def measure_shared_context() -> None:
    grid, official = (TEN_SECONDS, 16, 24), replace(SMALL, conditioning="official")
    for k in (1, 2, 4, TEN_SECONDS):
        first = (TEN_SECONDS - k) // 2
        ours = seconds(lambda first=first, k=k: train(SMALL, [[clip(grid, first, k)]]))
        budget = sum(s.length for s in training_segments(SMALL, grid, 32, first, k))
        sizes = [
            sum(s.length for s in training_segments(official, grid, 32, unit, 1)) for unit in range(first, first + k)
        ]
        packs = [[clip(grid, first + i, 1) for i in members] for members in first_fit_decreasing(sizes, budget)]
        other = seconds(lambda packs=packs: train(official, packs))
        report(f"shared_context_seconds_k{'all' if k == TEN_SECONDS else k}", other / ours, ours, other, "s")


def corpus(units_per_clip: int) -> tuple[Index, Phase]:
    """The corpus with sd3-2b, in bins of 8 times the largest item."""
    measure = measure_for(preset("sd3-2b"))
    dataset = OutlinedDataset("/corpus", Outline(clips=CORPUS))
    largest = measure(TEN_SECONDS, 96, 160, 96, TEN_SECONDS - units_per_clip, units_per_clip).tokens
    phase = Phase(
        name="corpus",
        data=("/corpus",),
        steps=1000,
        units_per_clip=units_per_clip,
        tokens_per_bin=8 * largest,
        bins_per_step=RANKS,
    )
    return index_of(phase, Datasets({(phase.data[0].root, None): dataset}), measure, 1), phase


def count_packing() -> None:
    index, phase = corpus(units_per_clip=2)
    planned = list(islice(steps(index, phase, seed=0), 32))
    fill = fmean(b.tokens for bins in planned for b in bins) / phase.tokens_per_bin
    dealt = [[sum(b.flops for b in mine) for mine in deal(bins, RANKS)] for bins in planned]

    stream = Stream(index, phase, phase_seed(0, phase))
    sizes = [stream.draw()[1].size for _ in range(sum(len(b.items) for bins in planned for b in bins))]
    padded = sum(len(batch) * max(size.tokens for size in batch) for batch in batches(sizes, 4))
    padded_fill = sum(size.tokens for size in sizes) / padded
    report("packed_fill", fill / padded_fill, fill, padded_fill, "share")

    bins = first_fit_decreasing([size.tokens for size in sizes], phase.tokens_per_bin)
    costs = [sum(sizes[i].flops for i in members) for members in bins]
    # As they come, one to each rank; shuffled, since first-fit makes the dearest first.
    order = permutation(len(costs), "round robin")
    by_turns = batches([costs[i] for i in order], RANKS)[:-1]
    ours, other = (fmean(fmean(step) / max(step) for step in way) for way in (dealt, by_turns))
    report(f"balance_{RANKS}_ranks", ours / other, ours, other, "share")


def batches(things: Sequence[Thing], size: int) -> list[Sequence[Thing]]:
    return [things[i : i + size] for i in range(0, len(things), size)]


def measure_packing() -> None:
    latents, sides = (1, 1, 4, 1, 8, 1, 16, 4), ((16, 24), (16, 24), (32, 24), (24, 16))
    grids = [(latents[i % 8], *sides[i // 3 % 4]) for i in range(32)]

    def of(grid: tuple[int, int, int]) -> TrainingClip:
        return clip(grid, max(grid[0] - 2, 0), min(grid[0], 2))

    sizes = [
        sum(s.length for s in training_segments(SMALL, grid, 32, max(grid[0] - 2, 0), min(grid[0], 2)))
        for grid in grids
    ]
    bins = first_fit_decreasing(sizes, 4 * max(sizes))
    padded = [tuple(map(max, zip(*batch, strict=True))) for batch in batches(grids, 4) for _ in batch]
    ours = seconds(lambda: train(SMALL, [[of(grids[i]) for i in members] for members in bins]))
    other = seconds(lambda: train(SMALL, [[of(grid) for grid in batch] for batch in batches(padded, 4)]))
    report("packed_seconds", other / ours, ours, other, "s")


def measure_waiting(root: Path) -> None:
    dataset = write_dataset(root / "data", ((16, 24, 1), (16, 24, 4), (16, 16, 16)), clips=24, val=0)
    phase = {"name": "only", "data": [dataset], "steps": 24, "tokens_per_bin": 4000, "bins_per_step": 2}
    spec = TrainSpec.model_validate(
        {
            "kind": "train",
            "output": str(root / "run"),
            "model": {"preset": "tiny"},
            "phases": [phase],
            "checkpoints": {"every": 24},
            "log_every": 8,
            "metrics": {"gradient_noise_every": None},
        }
    )
    here = Run(settle(spec), Ranks(1, 0, torch.device("cpu")))
    here.train(lambda step, record: None, lambda: "", NothingBeside())
    # In the first lines the first step waits for the first plan.
    lines = [line for line in read_metrics(spec.output) if "loss" in line][1:]
    step = fmean(line["seconds_per_step"] for line in lines)
    index = index_of(here.spec.phases[0], here.datasets, measure_for(here.config), here.config.frames_per_unit)
    begun = time.perf_counter()
    for bins in islice(steps(index, here.spec.phases[0], spec.seed), spec.steps):
        for item in (item for b in bins for item in b.items):
            here.reader.read(item, here.spec.phases[0])
    reading = (time.perf_counter() - begun) / spec.steps
    ours, other = fmean(line["wait_share"] for line in lines), reading / (reading + step)
    report("waiting", other / ours, ours, other, "share")


if __name__ == "__main__":
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    count_shared_context()
    count_packing()
    measure_shared_context()
    measure_packing()
    with tempfile.TemporaryDirectory() as folder:
        measure_waiting(Path(folder))
