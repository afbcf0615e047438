"""Runs that live in processes of their own, so that they can share a model, and die."""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rayramid.platform.spec import spec_model
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.spec.run import RunSpec

LOOPS = {"train": "rayramid.platform.training.loop", "vae": "rayramid.platform.training.vae.loop"}

KILLED = -signal.SIGKILL


def train_in_processes(spec: RunSpec, world: int, rendezvous: Path, die_at: int | None = None) -> list[int]:
    """Trains on `world` ranks; after the line of step `die_at` the last rank kills itself. Returns the exit codes."""
    processes = start(spec, world, rendezvous, die_at)
    processes[-1].join()
    if die_at is not None:
        # The others wait for the dead one for ever; Ray Train ends them just so.
        kill(processes[:-1])
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def start(spec: RunSpec, world: int, rendezvous: Path, die_at: int | None = None) -> list[BaseProcess]:
    """The processes of `world` ranks that train; `rendezvous` is a folder."""
    context = mp.get_context("spawn")
    meeting = rendezvous / f"meeting-{len(list(rendezvous.iterdir()))}"
    arguments = [(spec.model_dump(mode="json"), world, rank, str(meeting), die_at) for rank in range(world)]
    # Daemons end with a test that fails before it ends them.
    processes = [context.Process(target=_rank, args=each, daemon=True) for each in arguments]
    for process in processes:
        process.start()
    return processes


def kill(processes: list[BaseProcess]) -> None:
    """Kills them by SIGKILL, and waits until they are gone."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _rank(spec: dict[str, Any], world: int, rank: int, meeting: str, die_at: int | None) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", world_size=world, rank=rank, timeout=timedelta(seconds=120)
        )

    def report(step: int, record: object) -> None:
        if step == die_at and rank == world - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    loop = importlib.import_module(LOOPS[spec["kind"]])
    loop.run(spec_model(spec["kind"]).model_validate(spec), Ranks.here(torch.device("cpu")), report)
    if world > 1:
        dist.destroy_process_group()
    _leave()


def in_processes(
    work: Callable[..., None], world: int, rendezvous: Path, *arguments: Any, backend: str = "gloo"
) -> None:
    """Calls `work(rank, *arguments)` on `world` ranks of one group; raises what one of them raises."""
    mp.spawn(_work, (work, world, str(rendezvous / "meeting"), arguments, backend), nprocs=world)


def _work(
    rank: int, work: Callable[..., None], world: int, meeting: str, arguments: tuple[Any, ...], backend: str
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(backend, init_method=f"file://{meeting}", world_size=world, rank=rank)
    work(rank, *arguments)
    dist.destroy_process_group()
    _leave()


def _leave() -> None:
    """Ends the process, its work done. Torch's threads may outlive the interpreter, whose end then aborts, rarely."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
