"""Reading what the plan says, some steps ahead of the loop."""

import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from rayramid.models import storage
from rayramid.models.dit.config import DiTConfig
from rayramid.models.objective import TrainingClip
from rayramid.models.vae.io import CONFIG, parse_config
from rayramid.models.vae.model import CausalVAE
from rayramid.pipelines.dataset import DamagedError
from rayramid.platform.training.data import Datasets
from rayramid.platform.training.index import Index
from rayramid.platform.training.plan import Bin, Bookmark, deal, marked_steps
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.visits import Item

log = logging.getLogger(__name__)

# Threads wait for storage nearly all of their time.
READERS = 8
# Steps that are planned, and of these read, when the next is asked for. A window is planned in one go, while the steps
# of the one before are trained.
STEPS_PLANNED, STEPS_READ = 16, 3


@dataclass(frozen=True)
class Damage:
    """A visit that was left out: how many units would have been targets, and the file that can't be read."""

    units: int
    file: str


@dataclass(frozen=True)
class Share:
    """One rank's part of a global step.

    Attributes:
        bins: the clips of each of its packs.
        weights: 1, or 0 for a pack that is there only so that all ranks run equally many forwards.
        damaged: visits that this rank left out of its bins.
        units: target units of the whole step as planned, over all ranks, damaged ones included.
        tokens: tokens of the whole step.
        flops: floating-point operations of the whole step, forward and backward, nothing recomputed.
        own_flops: those of this rank's packs of weight 1.
        fill: tokens by token budget of the whole step.
        waited: seconds that the loop waited for it.
        bookmark: where its window of the plan begins.
    """

    bins: tuple[tuple[TrainingClip, ...], ...]
    weights: tuple[float, ...]
    damaged: tuple[Damage, ...]
    units: int
    tokens: int
    flops: float
    own_flops: float
    fill: float
    waited: float
    bookmark: Bookmark


class Reader:
    """Clips as the objective takes them: normalised latents and embedded texts.

    Args:
        datasets: where they are.
        vae: whose latents they are, for its shift and scale.
        config: of the model that is trained.
        dtype: of latents and texts.
        skip: whether clips whose files are missing or corrupt are left out.
    """

    def __init__(
        self, datasets: Datasets, vae: CausalVAE, config: DiTConfig, dtype: torch.dtype, *, skip: bool = False
    ) -> None:
        self._datasets, self._vae, self._config, self._dtype, self._skip = datasets, vae, config, dtype, skip
        self._told: set[str] = set()

    def read(self, item: Item, phase: Phase) -> TrainingClip | Damage:
        """The clip of one item, or what is wrong with it; DamagedError instead, naming the file, without `skip`."""
        dataset = self._datasets.of(phase.data[item.root])
        try:
            raw_CTHW = dataset.latent(item.row)
            tokens_LD, pooled_P = dataset.text(item.caption)
        except DamagedError as damaged:
            if not self._skip:
                raise
            if damaged.file not in self._told:
                log.warning("clips left out: %s", damaged)
                self._told.add(damaged.file)
            return Damage(item.units, damaged.file)
        return TrainingClip(
            latent_CTHW=self._vae.normalise(whole_units(raw_CTHW, self._config.frames_per_unit)).to(self._dtype),
            text_LD=tokens_LD.to(self._dtype),
            pooled_P=pooled_P.to(self._dtype),
            first_unit=item.first_unit,
            units=item.units,
            key=item.key,
            finest=item.finest,
        )

    def pack(self, found: Iterable[TrainingClip | Damage], weight: float) -> tuple[tuple[TrainingClip, ...], float]:
        """What a bin holds without its damaged clips, and its weight; a bin that has no others is a blank without."""
        clips = tuple(clip for clip in found if isinstance(clip, TrainingClip))
        return (clips, weight) if clips else ((self._blank(),), 0.0)

    def _blank(self) -> TrainingClip:
        config, side = self._config, self._config.side_multiple
        latent_CTHW = torch.zeros(config.latent_channels, 1, side, side, dtype=self._dtype)
        text_LD, pooled_P = (latent_CTHW.new_zeros(shape) for shape in ((1, config.text_dim), (config.pooled_dim,)))
        return TrainingClip(latent_CTHW, text_LD, pooled_P, first_unit=0, units=1, key=0)


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
    mine = deal(bins, world)[rank]
    missing = -(-len(bins) // world) - len(mine)
    filler = mine[:1] or [min(bins, key=lambda b: b.flops)]
    return mine + filler * missing, (1.0,) * len(mine) + (0.0,) * missing


@dataclass(frozen=True)
class _Reading:
    """A step whose clips are being read: all its bins, this rank's with their weights, and what comes of them."""

    bins: list[Bin]
    mine: list[Bin]
    weights: tuple[float, ...]
    clips: list[list[Future[TrainingClip | Damage]]]
    bookmark: Bookmark


def feed(
    reader: Reader,
    index: Index,
    phase: Phase,
    seed: int,
    *,
    first: int,
    world: int,
    rank: int,
    bookmark: Bookmark | None = None,
) -> Iterator[Share]:
    """The rank's shares of the phase's steps from `first` on; plans and reads ahead in threads.

    A bookmark of the phase's plan, at or before `first`, saves planning anew what comes before.
    """
    planned = marked_steps(index, phase, seed, first, bookmark)
    planner = ThreadPoolExecutor(1, thread_name_prefix="plan")
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="latents")
    plans: deque[Future[tuple[list[Bin], Bookmark]]] = deque()
    reading: deque[_Reading] = deque()

    def begin(bins: list[Bin], here: Bookmark) -> _Reading:
        mine, weights = my_bins(bins, world, rank)
        clips = [[readers.submit(reader.read, item, phase) for item in b.items] for b in mine]
        return _Reading(bins, mine, weights, clips, here)

    try:
        for step in range(first, phase.steps):
            began, left = time.perf_counter(), phase.steps - step
            while len(reading) + len(plans) < min(STEPS_PLANNED, left):
                plans.append(planner.submit(next, planned))
            while len(reading) < min(STEPS_READ, left):
                reading.append(begin(*plans.popleft().result()))
            yield _share(reading.popleft(), reader, phase, began)
    finally:
        for pool in (planner, readers):
            pool.shutdown(wait=False, cancel_futures=True)


def _share(step: _Reading, reader: Reader, phase: Phase, began: float) -> Share:
    """Waits for the clips; the wait counts from `began`."""
    found = [[clip.result() for clip in members] for members in step.clips]
    packs = [reader.pack(members, weight) for members, weight in zip(found, step.weights, strict=True)]
    tokens = sum(b.tokens for b in step.bins)
    return Share(
        bins=tuple(clips for clips, _ in packs),
        weights=tuple(weight for _, weight in packs),
        damaged=tuple(
            clip
            for members, weight in zip(found, step.weights, strict=True)
            for clip in members
            if weight and isinstance(clip, Damage)
        ),
        units=sum(b.units for b in step.bins),
        tokens=tokens,
        flops=sum(b.flops for b in step.bins),
        own_flops=sum(b.flops * weight for b, weight in zip(step.mine, step.weights, strict=True)),
        fill=tokens / (len(step.bins) * phase.tokens_per_bin),
        waited=time.perf_counter() - began,
        bookmark=step.bookmark,
    )
