"""A rank of a crew: a process that makes every forward that the first rank makes, with its own heads' share of it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from threading import Thread

import torch
import torch.distributed as dist

from rayramid.models.cache import Cache
from rayramid.models.card import ModelCard
from rayramid.models.cpu import compute_on_cpu
from rayramid.models.dit.model import DiT
from rayramid.models.history import Segment
from rayramid.models.sequence import Pack
from rayramid.models.transformer import Holding

# In which the ranks must have come to the same place of a forward.
PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True)
class Load:
    """An order to load a model: its number, checkpoint folder, card and adapter."""

    number: int
    url: str
    card: ModelCard
    adapter: str | None


@dataclass(frozen=True)
class Forward:
    """An order for a forward: the model's number, the pack, each clip's cache by its number, with what is still in it.

    A rank has only its own heads' keys and values, so it has caches of its own.
    """

    dit: int
    pack: Pack
    caches: Sequence[tuple[int, Sequence[Segment]]] | None


@dataclass(frozen=True)
class Order:
    """What the first rank tells the others: numbers of models and caches that are no more, and what to do."""

    gone: Sequence[int]
    work: Load | Forward


@dataclass(frozen=True)
class Place:
    """One rank's place in a crew.

    Attributes:
        rank: its number.
        ranks: how many there are.
        meeting: URL by which they find each other.
        threads: of this rank.
        holding: how every rank holds a DiT.
    """

    rank: int
    ranks: int
    meeting: str
    threads: int
    holding: Holding

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return torch.device(self.holding.of_rank(self.rank))

    def join(self) -> None:
        """Return when all ranks are there."""
        compute_on_cpu(self.threads)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, init_method=self.meeting, rank=self.rank, world_size=self.ranks, timeout=PATIENCE
        )


def follow(place: Place, leader: Connection) -> None:
    """The life of a rank's process: it carries out orders until the first rank closes the connection or dies."""
    Thread(target=_end_with_leader, daemon=True).start()
    leader.send("here")
    place.join()
    rank = _Rank(place)
    while True:
        try:
            order = leader.recv()
        except (EOFError, ConnectionError):
            # Torch's threads may outlive the interpreter, whose end then aborts, rarely.
            os._exit(0)
        rank.carry_out(order)
        if isinstance(order.work, Load):
            leader.send("loaded")


class _Rank:
    """The models and caches of a rank, by their numbers."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._dits: dict[int, DiT] = {}
        self._caches: dict[int, Cache] = {}

    def carry_out(self, order: Order) -> None:
        for number in order.gone:
            self._dits.pop(number, None)
            self._caches.pop(number, None)
        if isinstance(order.work, Load):
            self._load(order.work)
        else:
            self._forward(order.work)

    def _load(self, load: Load) -> None:
        dit = self._place.holding.load(load.url, load.card, load.adapter, self._place.rank)
        dit.sequence_group = dist.group.WORLD
        self._dits[load.number] = dit

    @torch.no_grad()
    def _forward(self, forward: Forward) -> None:
        dit = self._dits[forward.dit]
        rows = None if forward.caches is None else [self._cache(dit, *each) for each in forward.caches]
        dit(forward.pack.to(self._place.device), rows)

    def _cache(self, dit: DiT, number: int, segments: Sequence[Segment]) -> Cache:
        """This rank's cache of a number, with no more in it than the first rank's."""
        cache = self._caches.setdefault(number, Cache(dit.config.levels, dit.config.history_units))
        cache.keep(segments)
        return cache


def _end_with_leader() -> None:
    """A rank whose leader has died ends at once, though it may be within a collective that nothing else would end."""
    leader = parent_process()
    assert leader is not None
    leader.join()
    os._exit(1)
