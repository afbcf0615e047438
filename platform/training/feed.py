"""Reading what the plan says, some steps ahead of the loop."""

import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from rayramid.models import storage
from rayramid.models.objective import TrainingClip
from rayramid.models.vae.io import CONFIG, parse_config
from rayramid.models.vae.model import CausalVAE
from rayramid.platform.training.data import Datasets
from rayramid.platform.training.index import Index
from rayramid.platform.training.plan import Bin, Item, deal, steps
from rayramid.platform.training.spec import Phase

# Threads wait for storage nearly all of their time.
READERS = 8
STEPS_AHEAD = 2


@dataclass(frozen=True)
class Share:
    """One rank's part of a global step.

    Attributes:
        bins: the clips of each of its packs.
        weights: 1, or 0 for a pack that is there only so that all ranks run equally many forwards.
        units: target units of the whole step, over all ranks.
        tokens: tokens of the whole step.
        flops: floating-point operations of the whole step, forward and backward, nothing recomputed.
        fill: tokens by token budget of the whole step.
        waited: seconds that the loop waited for it.
    """

    bins: tuple[tuple[TrainingClip, ...], ...]
    weights: tuple[float, ...]
    units: int
    tokens: int
    flops: float
    fill: float
    waited: float


class Reader:
    """Clips as the objective takes them: normalised latents and embedded texts."""

    def __init__(self, datasets: Datasets, vae: CausalVAE, frames_per_unit: int | None, dtype: torch.dtype) -> None:
        self._datasets, self._vae, self._frames_per_unit, self._dtype = datasets, vae, frames_per_unit, dtype

    def read(self, item: Item, phase: Phase) -> TrainingClip:
        """The clip of one item; UserError naming the file when its bytes are not what the index says."""
        dataset = self._datasets.of(phase.data[item.root])
        raw_CTHW = dataset.latent(item.row)
        tokens_LD, pooled_P = dataset.text(item.caption)
        return TrainingClip(
            latent_CTHW=self._vae.normalise(whole_units(raw_CTHW, self._frames_per_unit)).to(self._dtype),
            text_LD=tokens_LD.to(self._dtype),
            pooled_P=pooled_P.to(self._dtype),
            first_unit=item.first_unit,
            units=item.units,
            key=item.key,
        )


def normaliser(vae_url: str) -> CausalVAE:
    """The VAE of a folder without its weights: enough to normalise latents."""
    location = storage.join(vae_url, CONFIG)
    config = parse_config(json.loads(storage.read_bytes(location)), location)
    with torch.device("meta"):
        return CausalVAE(config)


def whole_units(latent_CTHW: Tensor, frames_per_unit: int | None) -> Tensor:
    """The latents without those at the end that make no whole unit."""
    if frames_per_unit is None:
        return latent_CTHW
    latents = latent_CTHW.shape[1]
    return latent_CTHW[:, : latents - (latents - 1) % frames_per_unit]


def my_bins(bins: list[Bin], world: int, rank: int) -> tuple[list[Bin], tuple[float, ...]]:
    """The rank's bins with weight 1; a rank that got one fewer than others repeats one with weight 0."""
    mine = deal(bins, world, rank)
    missing = -(-len(bins) // world) - len(mine)
    filler = mine[:1] or [min(bins, key=lambda b: b.flops)]
    return mine + filler * missing, (1.0,) * len(mine) + (0.0,) * missing


def feed(
    reader: Reader, index: Index, phase: Phase, seed: int, *, first: int, world: int, rank: int
) -> Iterator[Share]:
    """The rank's shares of the phase's steps from `first` on; reads ahead in threads."""
    planned = steps(index, phase, seed, first=first)
    ahead: deque[tuple[list[Bin], tuple[float, ...], list[list[Future[TrainingClip]]]]] = deque()
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="latents")
    try:
        for step in range(first, phase.steps):
            while len(ahead) <= min(STEPS_AHEAD, phase.steps - step - 1):
                bins = next(planned)
                mine, weights = my_bins(bins, world, rank)
                futures = [[pool.submit(reader.read, item, phase) for item in b.items] for b in mine]
                ahead.append((bins, weights, futures))
            bins, weights, futures = ahead.popleft()
            began = time.perf_counter()
            clips = tuple(tuple(future.result() for future in members) for members in futures)
            tokens = sum(b.tokens for b in bins)
            yield Share(
                bins=clips,
                weights=weights,
                units=sum(b.units for b in bins),
                tokens=tokens,
                flops=sum(b.flops for b in bins),
                fill=tokens / (len(bins) * phase.tokens_per_bin),
                waited=time.perf_counter() - began,
            )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
