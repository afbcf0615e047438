"""Checkpoints of a run: sharded by DCP, real from the moment that their marker exists.

    checkpoints/step-00000100.json                 the marker: names the data folder; created once, atomically
    checkpoints/step-00000100.<attempt>/           what DCP wrote
    checkpoints/step-00000100.<attempt>/__0_0.distcp, .metadata, …

A writer that dies leaves a folder without a marker, which nobody reads; the next save removes it.
"""

import json
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.training.parallel import Ranks

_MARKER = re.compile(r"step-(\d{8})\.json")
_DATA = re.compile(r"step-(\d{8})\.[0-9a-f]+")


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint, as its marker tells it.

    Attributes:
        step: optimiser steps done; also the position in the plan.
        skipped: how many of them were skipped as non-finite.
        data: name of the folder beside the marker.
        files: bytes of every file in it.
        git_revision: the code that wrote it, empty outside a checkout.
        workers: how many ranks wrote it.
    """

    step: int
    skipped: int
    data: str
    files: dict[str, int]
    git_revision: str
    workers: int


def committed(folder: str) -> list[Checkpoint]:
    """The checkpoints below `folder`, oldest first."""
    names = (storage.relative(folder, file) for file in storage.list_files(folder, ".json"))
    steps = sorted(int(match[1]) for match in map(_MARKER.fullmatch, names) if match)
    return [Checkpoint(**json.loads(storage.read_bytes(_marker(folder, step)))) for step in steps]


def latest(folder: str) -> Checkpoint | None:
    """The newest committed checkpoint."""
    found = committed(folder)
    return found[-1] if found else None


def save(
    folder: str, state: dict[str, Any], step: int, *, skipped: int, attempt: str, git_revision: str, ranks: Ranks
) -> Checkpoint:
    """Writes `state` (a collective) and commits it.

    Raises:
        UserError: the step is committed already, by another run that writes to the same place.
    """
    name = f"step-{step:08d}.{attempt}"
    target = storage.join(folder, name)
    local = storage.local_path(target)
    with _written_to(local) as path:
        with _quiet():
            dcp_save(state, storage_writer=FileSystemWriter(path), no_dist=ranks.world == 1)
        if local is None:
            storage.sync_up(path, target)
    ranks.barrier()
    checkpoint = Checkpoint(
        step=step,
        skipped=skipped,
        data=name,
        files={storage.relative(target, file): storage.size(file) for file in storage.list_files(target)},
        git_revision=git_revision,
        workers=ranks.world,
    )
    taken = False
    if ranks.is_first:
        taken = not storage.create(_marker(folder, step), json.dumps(asdict(checkpoint)).encode())
    if ranks.agree(taken):
        raise UserError(f"{folder}: step {step} was committed by another run; give each run an output of its own")
    return checkpoint


def load(folder: str, checkpoint: Checkpoint, state: dict[str, Any], *, alone: bool) -> None:
    """Fills `state` in place, from a checkpoint of any number of ranks; a collective unless `alone`.

    Raises:
        UserError: a file is missing or has another length than when it was committed.
    """
    source = storage.join(folder, checkpoint.data)
    for name, size in checkpoint.files.items():
        file = storage.join(source, name)
        if not storage.exists(file) or storage.size(file) != size:
            raise UserError(
                f"{file}: missing or damaged; remove {_marker(folder, checkpoint.step)} to resume from the one before"
            )
    with _read_from(source) as path, _quiet():
        dcp_load(state, storage_reader=FileSystemReader(path), no_dist=alone)


def prune(folder: str, keep_last: int, keep_every: int | None) -> None:
    """Deletes checkpoints that need not stay, markers first, and data folders that were never committed.

    Only one process may call this, and none may be writing below `folder`.
    """
    checkpoints = committed(folder)
    newest = {checkpoint.step for checkpoint in checkpoints[-keep_last:]}
    kept = [c for c in checkpoints if c.step in newest or (keep_every and c.step % keep_every == 0)]
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            storage.delete(_marker(folder, checkpoint.step))
    names = {c.data for c in kept}
    for file in list(storage.list_files(folder)):
        data = storage.relative(folder, file).partition("/")[0]
        if _DATA.fullmatch(data) and data not in names:
            storage.delete(file)
    local = storage.local_path(folder)
    if local is not None and local.is_dir():
        for left in local.iterdir():
            if left.is_dir() and _DATA.fullmatch(left.name) and left.name not in names and not any(left.iterdir()):
                left.rmdir()


def _marker(folder: str, step: int) -> str:
    return storage.join(folder, f"step-{step:08d}.json")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without DCP's guess, on one rank, that one rank is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


@contextmanager
def _written_to(local: Path | None) -> Iterator[Path]:
    if local is not None:
        yield local
        return
    with tempfile.TemporaryDirectory(prefix="rayramid-checkpoint-") as scratch:
        yield Path(scratch)


@contextmanager
def _read_from(source: str) -> Iterator[Path]:
    local = storage.local_path(source)
    if local is not None:
        yield local
        return
    with tempfile.TemporaryDirectory(prefix="rayramid-checkpoint-") as scratch:
        storage.sync_down(source, scratch)
        yield Path(scratch)
