"""What a run tells while it goes on: `metrics.jsonl` and TensorBoard events on any storage, and trackers if asked.

metrics.jsonl      a line per record; every step has one of each kind
tensorboard/       the same numbers as curves
trackers.json      the run's names at its trackers, and what they were told
"""

import io
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.stores.local import plain_errors
from rayramid.platform.training.spec.run import RunSpec
from rayramid.platform.training.spec.seeing import MetricsSettings
from rayramid.platform.training.trackers import Tracker, open_trackers

log = logging.getLogger(__name__)

# Remote objects can't be appended to, so they are written anew, but not more often than this.
UPLOAD_SECONDS = 15.0


class Metrics:
    """One line of JSON per record, its numbers as TensorBoard scalars and at the trackers.

    A run that starts again at an earlier step takes back what was written after it. Trackers can't, so what they were
    told of later steps is not told again. One process of a run may have this open.

    Storage that is full or can't be reached for a while holds nothing up: lines wait until it is back, curves of local
    runs are lost.

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
        # How many lines are in the file; None after a failure, when it may end anywhere.
        self._written: int | None = len(self._lines)
        self._board = _Board(storage.join(output, "tensorboard"), step)
        self._untold: list[tuple[int, dict[str, float]]] = []
        self._kinds = {_kind(record["step"], record) for record in map(json.loads, self._lines)}
        self._uploaded = time.monotonic()

    def has(self, step: int, record: Mapping[str, Any]) -> bool:
        """Whether a record of `step` that begins with the same key was written."""
        return _kind(step, record) in self._kinds

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """Adds a record of `step`. Nested keys become `a/b` as curves; only finite numbers are curves."""
        line = json.dumps({"step": step, **finite(record)})
        self._lines.append(line)
        self._kinds.add(_kind(step, record))
        curves = flat(record)
        self._board.write(step, curves)
        self._untold.append((step, curves))
        if self._local is not None:
            self._put()
        if time.monotonic() - self._uploaded > UPLOAD_SECONDS:
            self.flush()

    def show(self, step: int, videos: Mapping[str, str]) -> None:
        """Shows videos of `step`, by name.

        Args:
            step: that they are of.
            videos: URLs of mp4 files, beside each of which lies a strip of its frames (.webp).
        """
        for name, url in videos.items():
            try:
                strip = storage.read_bytes(url.removesuffix(".mp4") + ".webp")
                self._board.show(name, np.asarray(Image.open(io.BytesIO(strip)).convert("RGB")), step)
                self._trackers.show(step, name, url)
            except UserError as problem:
                log.warning("a video is not shown: %s", problem)

    def flush(self) -> None:
        """Makes everything written so far visible at the output and the trackers."""
        self._put()
        self._board.flush()
        self._uploaded = time.monotonic()

    def close(self) -> None:
        """Flushes and ends."""
        self.flush()
        self._board.close()
        self._trackers.close()

    def _put(self) -> None:
        """Brings the file up to date; then tells the trackers, so that a restart knows what they were told."""
        try:
            if self._local is None or self._written is None:
                storage.write_atomic(self.url, _joined(self._lines))
            else:
                with plain_errors(self.url), self._local.open("a", encoding="utf-8") as file:
                    file.write(_joined(self._lines[self._written :]).decode())
        except UserError as problem:
            if self._written is not None:
                log.warning("metrics wait: %s", problem)
            self._written = None
            return
        self._written = len(self._lines)
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
        self._writer: SummaryWriter | None = None
        # TensorBoard forgets what it was told before of this step and later ones.
        self._again_from: int | None = step + 1

    def write(self, step: int, curves: Mapping[str, float]) -> None:
        with self._as_far_as_possible():
            for name, value in curves.items():
                self._events_file().add_scalar(name, value, step)

    def show(self, name: str, image_HWC: NDArray[np.uint8], step: int) -> None:
        with self._as_far_as_possible():
            self._events_file().add_image(name, image_HWC, step, dataformats="HWC")

    def _events_file(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = SummaryWriter(str(self._events), purge_step=self._again_from, flush_secs=5)
            self._again_from = None
        return self._writer

    def flush(self) -> None:
        with self._as_far_as_possible():
            if self._writer is not None:
                self._writer.flush()
            if self._scratch is not None:
                for file in self._events.iterdir():
                    storage.upload(file, storage.join(self._url, file.name))

    def close(self) -> None:
        with self._as_far_as_possible():
            if self._writer is not None:
                self._writer.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    @contextmanager
    def _as_far_as_possible(self) -> Iterator[None]:
        """A writer that has met a full disk is dead: the next curves go to a new one."""
        try:
            with plain_errors(self._url):
                yield
        except UserError as problem:
            if self._scratch is None:
                self._writer = None
            log.info("curves are lost or late", extra={"problem": str(problem)})


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

    def show(self, step: int, name: str, url: str) -> None:
        if not self._open:
            return
        with tempfile.TemporaryDirectory(prefix="rayramid-video-") as scratch:
            file = Path(scratch, "video.mp4")
            storage.download(url, file)
            for tracker in self._open.values():
                tracker.show(step, name, file)

    def close(self) -> None:
        for tracker in self._open.values():
            tracker.close()


def open_metrics(spec: RunSpec, step: int) -> Metrics:
    """The metrics of a run that starts at `step`."""
    return Metrics(spec.output, step, spec.metrics, spec.model_dump(mode="json", exclude={"metrics"}))


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


def _kind(step: int, record: Mapping[str, Any]) -> tuple[int, str]:
    return step, next(name for name in record if name != "step")


def _read(url: str) -> list[str]:
    if not storage.exists(url):
        return []
    # A process killed while it wrote leaves half a line without an end.
    return [line[:-1] for line in storage.read_bytes(url).decode().splitlines(keepends=True) if line.endswith("\n")]


def _joined(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def finite(value: Any) -> Any:
    """JSON knows no NaN; such numbers are written as strings."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
