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
# So many damaged files in a row are no accident.
MOST_DAMAGED = 10


@dataclass(frozen=True)
class Share:
    """One rank's part of a global step.

    Attributes:
        parts: what the rank does.
        clips: the frames [T, H, W, 3] of each, of the whole clip.
        visits: of the whole step, over all ranks.
        frames: of the whole step.
        damaged: files without their frames, in whose place others were read.
        waited: seconds that the loop waited for it.
    """

    parts: tuple[Part, ...]
    clips: tuple[Frames, ...]
    visits: int
    frames: int
    damaged: tuple[str, ...]
    waited: float


class ClipReader:
    """Reads clips in several threads, each with a decoding process of its own.

    Args:
        decoding: how many, and how patiently.
        skip: whether another clip is read in the place of a damaged one.

    Attributes:
        left_out: the damaged files met so far.
    """

    def __init__(self, decoding: Decoding, *, skip: bool) -> None:
        self._decoding, self._skip = decoding, skip
        self._pool = ThreadPoolExecutor(decoding.readers, thread_name_prefix="clips")
        self._own = threading.local()
        self.left_out: set[str] = set()

    def whole(self, row: Row, phase: Phase, frames: int) -> Frames | None:
        """The first `frames` frames of a clip, scaled for the phase and not cropped; None if damaged ones are skipped.

        Raises:
            UserError: the file is damaged, and that ends the run.
        """
        height, width = scaled(row, phase)
        try:
            return self._read(row, phase, frames, height, width)
        except DecodeError as error:
            self._damaged(row, error)
            return None

    def crop(self, visit: Visit, found: Readable, phase: Phase) -> tuple[Frames, tuple[str, ...]]:
        """The visit's frames, and the damaged files met before; place, flip and start follow from its key.

        Raises:
            UserError: a file is damaged, and that ends the run; or file after file is.
        """
        rows = found.videos if visit.kind == "video" else found.stills
        damaged: list[str] = []
        while len(damaged) < MOST_DAMAGED:
            # A damaged file is replaced by another: the same one whenever it is met.
            row = rows[draw_below(len(rows), "instead", visit.key, len(damaged)) if damaged else visit.row]
            try:
                return self._crop(row, visit, phase), tuple(damaged)
            except DecodeError as error:
                self._damaged(row, error)
                damaged.append(row["uri"])
        raise UserError(f"phase '{phase.name}': {MOST_DAMAGED} damaged files in a row, as {damaged[0]}")

    def submit(self, visit: Visit, found: Readable, phase: Phase) -> Future[tuple[Frames, tuple[str, ...]]]:
        """`crop`, in one of the threads."""
        return self._pool.submit(self.crop, visit, found, phase)

    def _damaged(self, row: Row, error: DecodeError) -> None:
        if not self._skip:
            raise UserError(f"{error}; mend or remove the file, or set damaged_clips to skip")
        if row["uri"] not in self.left_out:
            log.warning("clips left out: %s", error)
            self.left_out.add(row["uri"])

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
    ahead: deque[tuple[Sequence[Visit], list[Part], list[Future[tuple[Frames, tuple[str, ...]]]]]] = deque()
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
            damaged=tuple(file for _, damaged in read for file in damaged),
            waited=time.perf_counter() - began,
        )
