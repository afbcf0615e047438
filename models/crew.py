"""Several processes of one machine that make every forward of a DiT together, by sequence parallelism.

The process that samples is the first rank and leads: hooks of its DiTs tell the others (`models/rank.py`) of each
forward. None can go on without all others, so they end together: a rank finds out by itself that its leader has died,
and whoever leads has to `wait` for a rank's death and end, for its own thread may be in a collective that never ends.
"""

import pickle
from collections import deque
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
import torch.distributed as dist

from rayramid.models.cache import Cache
from rayramid.models.card import ModelCard
from rayramid.models.dit.model import DiT
from rayramid.models.rank import Forward, Load, Order, Place, follow
from rayramid.models.transformer import Holding

# What a process is given to end by itself.
ENDING_S = 10.0


class Crew:
    """The ranks, of which this process is the first; a process can lead one crew.

    Args:
        holding: how each rank holds DiTs.
        ranks: how many; they share this process's threads.

    Raises:
        RuntimeError: a rank did not come up.
    """

    def __init__(self, holding: Holding, ranks: int) -> None:
        self._holding = holding
        self._ranks = ranks
        self._numbers = count()
        self._caches: WeakKeyDictionary[Cache, int] = WeakKeyDictionary()
        self._gone = deque[int]()
        # Forwards of several DiTs, and loading, may come from several threads; ranks do one thing at a time.
        self._turn = Lock()
        self._peers: list[tuple[SpawnProcess, Connection]] = []
        spawn, threads = get_context("spawn"), max(1, torch.get_num_threads() // ranks)
        # Backends look things up there long after all ranks have met.
        self._folder = TemporaryDirectory(prefix="rayramid-crew-")
        meeting = f"file://{self._folder.name}/meeting"
        places = [Place(rank, ranks, meeting, threads, holding) for rank in range(ranks)]
        for place in places[1:]:
            here, there = spawn.Pipe()
            process = spawn.Process(target=follow, args=(place, there), daemon=True, name=f"rank {place.rank}")
            process.start()
            there.close()
            self._peers.append((process, here))
        self._hear()
        places[0].join()

    def load(self, url: str, card: ModelCard, adapter: str | None = None) -> DiT:
        """The DiT of a checkpoint folder, an adapter merged into it if one is given; all ranks share its forwards.

        Raises:
            ValueError: more ranks than it has heads.
            RuntimeError: a rank died.
        """
        if self._ranks > card.dit["heads"]:
            raise ValueError(f"{self._ranks} ranks cannot share the {card.dit['heads']} heads of this model")
        # Before the others do: what is wrong with the folder is the caller's to know, and ends nobody.
        dit = self._holding.load(url, card, adapter)
        number = next(self._numbers)
        with self._turn:
            self._tell(Load(number, url, card, adapter))
            self._hear()
        dit.sequence_group = dist.group.WORLD
        dit.register_forward_pre_hook(partial(self._begin, number))
        dit.register_forward_hook(self._end, always_call=True)
        finalize(dit, self._gone.append, number)
        return dit

    def check(self) -> None:
        """Raises RuntimeError if a rank has died."""
        for process, _ in self._peers:
            if not process.is_alive():
                raise _died(process)

    def wait(self) -> None:
        """Returns when a rank has died."""
        wait([process.sentinel for process, _ in self._peers])

    def close(self) -> None:
        """Ends the other ranks."""
        for _, connection in self._peers:
            connection.close()
        for process, _ in self._peers:
            process.join(ENDING_S)
            if process.is_alive():
                process.kill()
                process.join()
        dist.destroy_process_group()
        self._folder.cleanup()

    def _begin(self, number: int, dit: DiT, arguments: tuple[Any, ...]) -> None:
        """A DiT is about to make a forward."""
        self._turn.acquire()
        pack, caches = (*arguments, None)[:2]
        told = None if caches is None else [(self._number(cache), cache.segments) for cache in caches]
        self._tell(Forward(number, pack.to("cpu"), told))

    def _end(self, dit: DiT, arguments: tuple[Any, ...], velocities: object) -> None:
        """It has made it, or failed: then others may be in the middle of it, and nothing brings them together again."""
        if velocities is None:
            for process, _ in self._peers:
                process.kill()
        self._turn.release()

    def _tell(self, work: Load | Forward) -> None:
        self.check()
        gone = [self._gone.popleft() for _ in range(len(self._gone))]
        # Tensors by value, as `send` does not do it: each would take a file in /dev/shm.
        order = pickle.dumps(Order(gone, work))
        for process, connection in self._peers:
            try:
                connection.send_bytes(order)
            except ConnectionError:
                raise _died(process) from None

    def _hear(self) -> None:
        """Return when every other rank has answered."""
        for process, connection in self._peers:
            try:
                connection.recv()
            except (EOFError, ConnectionError):
                process.join()
                raise RuntimeError(
                    f"{process.name} of the transformer died with exit code {process.exitcode}"
                ) from None

    def _number(self, cache: Cache) -> int:
        if cache not in self._caches:
            self._caches[cache] = next(self._numbers)
            finalize(cache, self._gone.append, self._caches[cache])
        return self._caches[cache]


def _died(process: SpawnProcess) -> RuntimeError:
    # Its pipes close a moment before it has ended.
    process.join()
    return RuntimeError(f"{process.name} of the transformer died with exit code {process.exitcode}")
