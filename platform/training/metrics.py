"""What a run tells while it goes on: `metrics.jsonl` and TensorBoard events, on any storage."""

import json
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from rayramid.models import storage

# Remote objects can't be appended to, so they are written anew, but not more often than this.
UPLOAD_SECONDS = 15.0


class Metrics:
    """One line of JSON per record, and its numbers as TensorBoard scalars.

    A run that starts again at an earlier step takes back what was written after it, so every step has one line.
    """

    def __init__(self, output: str, step: int) -> None:
        self._output, self.url = output, storage.join(output, "metrics.jsonl")
        self._lines = [line for line in _read(self.url) if json.loads(line)["step"] <= step]
        storage.write_atomic(self.url, _joined(self._lines))
        self._local = storage.local_path(self.url)
        events = storage.join(output, "tensorboard")
        local_events = storage.local_path(events)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        if local_events is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="rayramid-events-")
            local_events = Path(self._scratch.name)
        self._events = local_events
        self._board = SummaryWriter(str(self._events), purge_step=step + 1, flush_secs=5)
        self._uploaded = time.monotonic()

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """Adds the record of `step`. Nested keys become `a/b` on the board; only finite numbers go there."""
        line = json.dumps({"step": step, **_finite(record)})
        self._lines.append(line)
        if self._local is not None:
            with self._local.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        for name, value in _flat(record).items():
            self._board.add_scalar(name, value, step)
        if time.monotonic() - self._uploaded > UPLOAD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Makes everything written so far visible at the output."""
        self._board.flush()
        if self._local is None:
            storage.write_atomic(self.url, _joined(self._lines))
        if self._scratch is not None:
            for file in self._events.iterdir():
                storage.upload(file, storage.join(self._output, "tensorboard", file.name))
        self._uploaded = time.monotonic()

    def close(self) -> None:
        """Flushes and ends."""
        self.flush()
        self._board.close()
        if self._scratch is not None:
            self._scratch.cleanup()


def read_metrics(output: str) -> list[dict[str, Any]]:
    """Every record of the run at `output`, in order."""
    return [json.loads(line) for line in _read(storage.join(output, "metrics.jsonl"))]


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


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            flat[f"{prefix}{key}"] = value
    return flat
