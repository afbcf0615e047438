"""Receipts: what commits a shard. The first one of a shard is the truth; to readers, files without one do not exist.

Attempts: a worker notes what it is about to do before it does it. If it dies, the note says which input it died on, and
an input that did so twice in one run is set apart.
"""

import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from rayramid.models import storage

T = TypeVar("T")

DEATHS_ALLOWED = 2

_READERS = 16


@dataclass(frozen=True)
class Failure:
    """Why one item of a shard failed: the error's class and its message, in one line; `input` names it for people."""

    item_id: str
    input: str
    error: str
    message: str
    attempt: int


@dataclass(frozen=True)
class Receipt:
    """One committed shard: its file (relative to the root), how its items fared, and where its tensors lie.

    `facts` holds, per item that succeeded, the small columns that planning and manifests need (`Job.facts`) and the
    places of its tensors, so that tensor files are only ever opened by byte range.
    """

    job: str
    shard_id: str
    file: str
    sha256: str
    bytes: int
    rows: int
    ok: int
    attempt: int
    seconds: float
    failures: tuple[Failure, ...]
    facts: dict[str, dict[str, Any]]


def commit(root: str, receipt: Receipt) -> Receipt:
    """Commit a shard; returns the receipt that holds, which is another's if that came first."""
    if storage.create(_url(root, receipt.job, receipt.shard_id), json.dumps(asdict(receipt)).encode()):
        return receipt
    committed = find(root, receipt.job, receipt.shard_id)
    assert committed is not None
    return committed


def find(root: str, job: str, shard_id: str) -> Receipt | None:
    """The receipt of a shard, None while it is not committed."""
    url = _url(root, job, shard_id)
    return _read(url) if storage.exists(url) else None


def committed(root: str, job: str) -> set[str]:
    """The ids of a job's committed shards; a listing, no receipt is read."""
    urls = storage.list_files(storage.join(root, "_receipts", job), ".json")
    return {url.rpartition("/")[2].removesuffix(".json") for url in urls}


def read_receipts(root: str, job: str, take: Callable[[Receipt], T]) -> dict[str, T]:
    """What `take` takes from each receipt of a job, by shard; whole receipts of millions of clips would fill memory."""
    urls = storage.list_files(storage.join(root, "_receipts", job), ".json")

    def read(url: str) -> tuple[str, T]:
        receipt = _read(url)
        return receipt.shard_id, take(receipt)

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(pool.map(read, urls))


@dataclass(frozen=True)
class Attempt:
    """One try at a shard, and the note it keeps of the items it is working on."""

    url: str
    number: int
    run: str

    def note(self, item_ids: Sequence[str]) -> None:
        """Say which items come next."""
        storage.write_atomic(self.url, _note(self.run, item_ids))


def begin(root: str, job: str, shard_id: str, run: str) -> tuple[Attempt, set[str]]:
    """Start the next attempt at a shard; also the items that have killed their worker too often in one run."""
    folder = storage.join(root, "_attempts", job, shard_id)
    notes = [json.loads(storage.read_bytes(url)) for url in storage.list_files(folder, ".json")]
    number = len(notes) + 1
    while not storage.create(storage.join(folder, f"{number:04d}.json"), _note(run, [])):
        number += 1
    return Attempt(storage.join(folder, f"{number:04d}.json"), number, run), _killers(notes)


def _note(run: str, item_ids: Sequence[str]) -> bytes:
    worker = {"host": socket.gethostname(), "pid": os.getpid()}
    return json.dumps({"run": run, "worker": worker, "items": list(item_ids)}).encode()


def _killers(notes: Iterable[dict[str, Any]]) -> set[str]:
    # Counted within a run: when the driver dies, all its workers die with it, whatever they were doing.
    deaths = Counter((note["run"], item) for note in notes for item in note["items"])
    return {item for (_, item), count in deaths.items() if count >= DEATHS_ALLOWED}


def _url(root: str, job: str, shard_id: str) -> str:
    return storage.join(root, "_receipts", job, f"{shard_id}.json")


def _read(url: str) -> Receipt:
    fields = json.loads(storage.read_bytes(url))
    return Receipt(**{**fields, "failures": tuple(Failure(**failure) for failure in fields["failures"])})
