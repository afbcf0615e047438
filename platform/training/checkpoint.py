"""Checkpoints of a run: sharded by DCP, real from the moment that their marker exists.

    checkpoints/step-00000100.json                 the marker: names the data folder; created once, atomically
    checkpoints/step-00000100.<attempt>/           what DCP wrote
    checkpoints/step-00000100.<attempt>/__0_0.distcp, .metadata, …

A writer that dies leaves a folder without a marker, which nobody reads and a later save removes.
"""

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.training.checkpoint_files import DamagedError, reader, writer
from rayramid.platform.training.checkpoint_pickles import CarefulPlanner

_MARKER = re.compile(r"step-(\d{8})\.json")
_NAME = re.compile(r"step-(\d{8})")
_DATA = re.compile(r"step-(\d{8})\.[0-9a-f]+")
# An upload of one file that has not ended by then has no writer any more.
_UPLOAD_SECONDS = 24 * 3600.0

# DCP guesses, on one rank, that one rank is meant.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")


class TakenError(UserError):
    """Another run has committed this step at the same place."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, as its marker tells it.

    There is no random state in it: everything random is a function of the spec's seed and of `step`.

    Attributes:
        step: optimiser steps done; also the position in the plan.
        skipped: how many of them were skipped as non-finite.
        spec: of the run, with the versions of its datasets.
        git_revision: the code that wrote it, empty outside a checkout.
        workers: how many ranks wrote it.
        plan: a bookmark of the plan; saves planning anew what comes before, and can be done without.
        data: name of the folder beside the marker.
        files: bytes of every file in it.
    """

    step: int
    skipped: int
    spec: dict[str, Any]
    git_revision: str
    workers: int
    plan: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    files: dict[str, int] = field(default_factory=dict)


def committed(folder: str) -> list[Checkpoint]:
    """The checkpoints below `folder`, oldest first."""
    names = (storage.relative(folder, file) for file in storage.list_files(folder, ".json"))
    steps = sorted(int(match[1]) for match in map(_MARKER.fullmatch, names) if match)
    return [Checkpoint(**json.loads(storage.read_bytes(_marker(folder, step)))) for step in steps]


def latest(folder: str) -> Checkpoint | None:
    """The newest committed checkpoint."""
    found = committed(folder)
    return found[-1] if found else None


def find(source: str) -> tuple[str, Checkpoint]:
    """The folder of checkpoints and the one that `source` names: a run, for its newest, or `…/step-00000100`.

    Raises:
        UserError: there is none.
    """
    above, _, name = source.rstrip("/").removesuffix(".json").rpartition("/")
    if named := _NAME.fullmatch(name):
        for checkpoint in committed(above):
            if checkpoint.step == int(named[1]):
                return above, checkpoint
        raise UserError(f"{source}: no such checkpoint; there are {[c.step for c in committed(above)] or 'none'}")
    folder = storage.join(source, "checkpoints")
    newest = latest(folder)
    if newest is None:
        raise UserError(f"{folder}: no checkpoint yet")
    return folder, newest


def save(folder: str, state: dict[str, Any], checkpoint: Checkpoint, group: dist.ProcessGroup | None = None) -> None:
    """Writes `state` to `checkpoint.data` and commits it; a collective of `group`, alone when None.

    Whatever fails on one rank is raised on all of them; nothing is committed then.

    Args:
        folder: of the checkpoints.
        state: nested dictionaries of tensors and numbers.
        checkpoint: what the marker will say; its `files` are filled in.
        group: has a CPU backend.

    Raises:
        TakenError: the step is committed already.
        UserError: the storage is full or can't be reached, or not all ranks write to the same.
    """
    target = storage.join(folder, checkpoint.data)

    def commit(files: dict[str, int]) -> None:
        marker = json.dumps(asdict(replace(checkpoint, files=files))).encode()
        if not storage.create(_marker(folder, checkpoint.step), marker):
            raise TakenError(
                f"{folder}: step {checkpoint.step} was committed by another run; give each run an output of its own"
            )

    with _causes(), writer(target, commit) as to:
        dcp_save(state, storage_writer=to, process_group=group, no_dist=group is None)


def load(folder: str, checkpoint: Checkpoint, state: dict[str, Any], *, alone: bool) -> None:
    """Fills `state` in place, from a checkpoint of any number of ranks; a collective unless `alone`.

    Raises:
        UserError: a file is missing or has another length than when it was committed, or would run code.
    """
    source = storage.join(folder, checkpoint.data)
    try:
        with _causes(), reader(source, checkpoint.files) as origin:
            dcp_load(state, storage_reader=origin, planner=CarefulPlanner(), no_dist=alone)
    except DamagedError as damaged:
        marker = _marker(folder, checkpoint.step)
        raise UserError(f"{damaged}; remove {marker} to resume from the one before") from None


def discard(folder: str, data: str) -> None:
    """Deletes a data folder that is not committed."""
    for file in list(storage.list_files(storage.join(folder, data))):
        storage.delete(file)
    local = storage.local_path(storage.join(folder, data))
    if local is not None and local.is_dir():
        local.rmdir()


def prune(folder: str, keep_last: int, keep_every: int | None) -> None:
    """Deletes checkpoints that need not stay, markers first, and what dead writers left.

    Only one process may call this. Uncommitted folders of steps after the newest may be under way, and stay.
    """
    checkpoints = committed(folder)
    newest = {checkpoint.step for checkpoint in checkpoints[-keep_last:]}
    kept = [c for c in checkpoints if c.step in newest or (keep_every and c.step % keep_every == 0)]
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            storage.delete(_marker(folder, checkpoint.step))
    names = {c.data for c in kept}
    last = max(newest, default=-1)
    for data in _data_folders(folder):
        match = _DATA.fullmatch(data)
        if match and data not in names and int(match[1]) <= last:
            discard(folder, data)
    storage.sweep(folder, _UPLOAD_SECONDS)


def _data_folders(folder: str) -> set[str]:
    """Names of the folders in `folder`; on a local disk also of empty ones."""
    names = {storage.relative(folder, file).partition("/")[0] for file in storage.list_files(folder)}
    local = storage.local_path(folder)
    if local is not None and local.is_dir():
        names |= {path.name for path in local.iterdir() if path.is_dir()}
    return names


def _marker(folder: str, step: int) -> str:
    return storage.join(folder, f"step-{step:08d}.json")


@contextmanager
def _causes() -> Iterator[None]:
    """Raises what went wrong on one rank, instead of DCP's account of all ranks."""
    try:
        yield
    except CheckpointException as failed:
        cause, _ = next(iter(failed.failures.values()))
        raise cause from None
