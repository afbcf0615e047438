"""Reading what the plan says, some steps ahead of the loop: decoded, scaled and cropped clips.

Shapes: T frames, H height, W width.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayramid.models.errors import UserError
from rayramid.models.media.errors import DecodeError
from rayramid.pipelines.encode import clip_frames
from rayramid.pipelines.frames import SourceFrames
from rayramid.pipelines.job import Row
from rayramid.platform.training.draw import draw_below
from rayramid.platform.training.vae.clips import Readable, length, rate, scaled
from rayramid.platform.training.vae.plan import Part, Visit, deal, phase_seed, plan
from rayramid.platform.training.vae.spec import Decoding, Phase

log = logging.getLogger(__name__)

Frames = NDArray[np.uint8]

STEPS_AHEAD = 2
# So many broken files in a row are no accident.
MOST_BROKEN = 10


@dataclass(frozen=True)
class Share:
    """One rank's part of a global step.

    Attributes:
        parts: what the rank does.
        clips: the frames [T, H, W, 3] of each, of the whole clip.
        visits: of the whole step, over all ranks.
        frames: of the whole step.
        broken: files that gave no frames and were replaced by others.
        waited: seconds that the loop waited for it.
    """

    parts: tuple[Part, ...]
    clips: tuple[Frames, ...]
    visits: int
    frames: int
    broken: int
    waited: float


class ClipReader:
    """Reads clips in several threads, each with a decoding process of its own."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._pool = ThreadPoolExecutor(decoding.readers, thread_name_prefix="clips")
        self._own = threading.local()

    def whole(self, row: Row, phase: Phase, frames: int) -> Frames:
        """The first `frames` frames of a clip, scaled for the phase and not cropped. Raises DecodeError."""
        height, width = scaled(row, phase)
        return self._read(row, phase, frames, height, width)

    def crop(self, visit: Visit, found: Readable, phase: Phase) -> tuple[Frames, int]:
        """The visit's frames, and how many broken files were met before; place, flip and start follow from its key.

        Raises:
            UserError: file after file is broken; names one.
        """
        rows = found.videos if visit.kind == "video" else found.stills
        for broken in range(MOST_BROKEN):
            # A broken file is replaced by another: the same one whenever it is met.
            row = rows[visit.row if not broken else draw_below(len(rows), "instead", visit.key, broken)]
            try:
                return self._crop(row, visit, phase), broken
            except DecodeError as error:
                log.warning("clip left out", extra={"clip": row["clip_id"], "reason": str(error)})
                last = error
        raise UserError(f"phase '{phase.name}': {MOST_BROKEN} broken files in a row; the last is {last}")

    def submit(self, visit: Visit, found: Readable, phase: Phase) -> Future[tuple[Frames, int]]:
        """`crop`, in one of the threads."""
        return self._pool.submit(self.crop, visit, found, phase)

    def close(self) -> None:
        """Ends the threads; their decoding processes end with them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _crop(self, row: Row, visit: Visit, phase: Phase) -> Frames:
        frames = phase.frames if visit.kind == "video" else 1
        height, width = scaled(row, phase)
        moved = row
        if row["kind"] == "video":
            # One frame is left at the end, since a start between two frames loses one.
            starts = max(1, length(row, phase) - frames)
            start = draw_below(starts, "start", visit.key)
            moved = {**row, "start_ms": row["start_ms"] + start * 1000 / rate(row, phase)}
        clip = self._read(moved, phase, frames, height, width)
        top = draw_below(height - phase.height + 1, "top", visit.key)
        left = draw_below(width - phase.width + 1, "left", visit.key)
        crop = clip[:, top : top + phase.height, left : left + phase.width]
        return crop[:, :, ::-1] if draw_below(2, "flip", visit.key) else crop

    def _read(self, row: Row, phase: Phase, frames: int, height: int, width: int) -> Frames:
        if not hasattr(self._own, "frames"):
            self._own.frames = SourceFrames(self._decoding.deadline_s)
        wanted = {**row, "frames": frames, "fps": rate(row, phase), "height": height, "width": width}
        return np.concatenate(list(clip_frames(self._own.frames, wanted)))


def feed(
    reader: ClipReader, found: Readable, phase: Phase, seed: int, *, first: int, world: int, rank: int
) -> Iterator[Share]:
    """The rank's shares of the phase's steps from `first` on; reads ahead."""
    ahead: deque[tuple[Sequence[Visit], list[Part], list[Future[tuple[Frames, int]]]]] = deque()
    planned = phase_seed(seed, phase)
    for step in range(first, phase.steps):
        while len(ahead) <= min(STEPS_AHEAD, phase.steps - step - 1):
            visits = plan(len(found.videos), len(found.stills), phase, planned, step + len(ahead))
            parts = deal(visits, phase.frames, world, rank, phase.time_split)
            ahead.append((visits, parts, [reader.submit(part.visit, found, phase) for part in parts]))
        due, parts, futures = ahead.popleft()
        began = time.perf_counter()
        read = [future.result() for future in futures]
        yield Share(
            parts=tuple(parts),
            clips=tuple(frames for frames, _ in read),
            visits=len(due),
            frames=sum(phase.frames if visit.kind == "video" else 1 for visit in due),
            broken=sum(broken for _, broken in read),
            waited=time.perf_counter() - began,
        )
