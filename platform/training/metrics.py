"""What a run tells while it goes on: `metrics.jsonl` and TensorBoard events on any storage, and trackers if asked.

metrics.jsonl      a line per record; every step has one of each kind
tensorboard/       the same numbers as curves
trackers.json      the run's names at its trackers, and what they were told
"""

import json
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from rayramid.models import storage
from rayramid.platform.training.spec import MetricsSettings
from rayramid.platform.training.trackers import Tracker, open_trackers

# Remote objects can't be appended to, so they are written anew, but not more often than this.
UPLOAD_SECONDS = 15.0


class Metrics:
    """One line of JSON per record, its numbers as TensorBoard scalars and at the trackers.

    A run that starts again at an earlier step takes back what was written after it. Trackers can't, so what they were
    told of later steps is not told again. One process of a run may have this open.

    Args:
        output: of the run.
        step: where it starts.
        settings: the trackers.
        spec: what trackers show beside the numbers.

    Raises:
        UserError: a tracker is not installed, or refuses the run.
    """

    def __init__(
        self, output: str, step: int, settings: MetricsSettings | None = None, spec: Mapping[str, Any] | None = None
    ) -> None:
        self._output, self.url = output, storage.join(output, "metrics.jsonl")
        before = _read(self.url)
        self._lines = [line for line in before if json.loads(line)["step"] <= step]
        # First, since it remembers the lines that are taken back.
        self._trackers = _Trackers(output, before, settings or MetricsSettings(), spec or {})
        storage.write_atomic(self.url, _joined(self._lines))
        self._local = storage.local_path(self.url)
        self._board = _Board(storage.join(output, "tensorboard"), step)
        self._untold: list[tuple[int, dict[str, float]]] = []
        self._uploaded = time.monotonic()

    def has(self, name: str, step: int) -> bool:
        """Whether a record of `step` with this name was written."""
        return any(record["step"] == step and name in record for record in map(json.loads, self._lines))

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """Adds a record of `step`. Nested keys become `a/b` as curves; only finite numbers are curves."""
        line = json.dumps({"step": step, **_finite(record)})
        self._lines.append(line)
        curves = flat(record)
        self._board.write(step, curves)
        self._untold.append((step, curves))
        if self._local is not None:
            with self._local.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            self._tell()
        if time.monotonic() - self._uploaded > UPLOAD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Makes everything written so far visible at the output and the trackers."""
        if self._local is None:
            storage.write_atomic(self.url, _joined(self._lines))
        self._board.flush()
        self._tell()
        self._uploaded = time.monotonic()

    def close(self) -> None:
        """Flushes and ends."""
        self.flush()
        self._board.close()
        self._trackers.close()

    def _tell(self) -> None:
        """Only what is in `metrics.jsonl` is told, so that a restart knows what was."""
        for step, curves in self._untold:
            self._trackers.tell(step, curves)
        self._untold = []


class _Board:
    """TensorBoard events, which on remote storage are written here first."""

    def __init__(self, url: str, step: int) -> None:
        self._url = url
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        local = storage.local_path(url)
        if local is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="rayramid-events-")
            local = Path(self._scratch.name)
        self._events = local
        self._writer = SummaryWriter(str(local), purge_step=step + 1, flush_secs=5)

    def write(self, step: int, curves: Mapping[str, float]) -> None:
        for name, value in curves.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()
        if self._scratch is not None:
            for file in self._events.iterdir():
                storage.upload(file, storage.join(self._url, file.name))

    def close(self) -> None:
        self._writer.close()
        if self._scratch is not None:
            self._scratch.cleanup()


class _Trackers:
    """The trackers of a run, which hear everything once over all starts of the run."""

    def __init__(self, output: str, lines: list[str], settings: MetricsSettings, spec: Mapping[str, Any]) -> None:
        note = storage.join(output, "trackers.json")
        before = json.loads(storage.read_bytes(note)) if storage.exists(note) else {"ids": {}, "told": {}}
        # By curve, the last step that was told.
        self._told: dict[str, int] = before["told"]
        for record in map(json.loads, lines):
            for name in flat(record):
                self._told[name] = max(self._told.get(name, 0), record["step"])
        self._told.pop("step", None)
        self._open: Mapping[str, Tracker] = open_trackers(settings, output, before["ids"], spec)
        if self._open:
            ids = before["ids"] | {name: tracker.id for name, tracker in self._open.items()}
            storage.write_atomic(note, json.dumps({"ids": ids, "told": self._told}, indent=1).encode())

    def tell(self, step: int, curves: Mapping[str, float]) -> None:
        new = {name: value for name, value in curves.items() if step > self._told.get(name, 0)}
        for tracker in self._open.values() if new else ():
            tracker.tell(step, new)

    def close(self) -> None:
        for tracker in self._open.values():
            tracker.close()


def read_metrics(output: str) -> list[dict[str, Any]]:
    """Every record of the run at `output`, in order."""
    return [json.loads(line) for line in _read(storage.join(output, "metrics.jsonl"))]


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a record, by the path of their keys: `{"stages": {"0": 0.5}}` has `stages/0`."""
    found: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            found[f"{prefix}{key}"] = value
    return found


def _read(url: str) -> list[str]:
    if not storage.exists(url):
        return []
    # A process killed while it wrote leaves half a line without an end.
    return [line[:-1] for line in storage.read_bytes(url).decode().splitlines(keepends=True) if line.endswith("\n")]


def _joined(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _finite(value: Any) -> Any:
    """JSON knows no NaN; such numbers are written as strings."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
