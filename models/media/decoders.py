"""Chosen frames of a track as RGB, by PyAV or by decord. Both give the same frames in the same orientation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayramid.models.media.errors import DecodeError
from rayramid.models.media.track import THREADS, Track, opened

Frame = NDArray[np.uint8]
"""Height, width, RGB."""

SAME_TIME_S = 0.002


def pyav_frames(track: Track, wanted: list[int]) -> Iterator[Frame]:
    """The frames with these rising indices; DecodeError if one does not come."""
    for entry in _entries(track, wanted[0]):
        with opened(track.path) as (container, stream):
            if entry is not None:
                container.seek(entry, stream=stream)
            decoded = _decoded(track, container, stream, set(wanted), seeking=entry is not None)
            first = next(decoded, None)
            if first is None or first[0] != wanted[0]:
                continue  # the seek went past it
            yield first[1]
            for index in wanted[1:]:
                found = next(decoded, None)
                if found is None or found[0] != index:
                    raise _missing(track, index)
                yield found[1]
            return
    raise _missing(track, wanted[0])


def _entries(track: Track, index: int) -> Iterator[int | None]:
    """Timestamps to seek to, the best first; at last None, the start of the file."""
    if track.pts is not None:
        before = [int(key) for key in track.keys if 0 < key <= index][-2:]
        yield from (int(track.pts[key]) for key in reversed(before))
    yield None


def _decoded(track: Track, container: Any, stream: Any, wanted: set[int], seeking: bool) -> Iterator[tuple[int, Frame]]:
    index_of = None if track.pts is None else {int(pts): index for index, pts in enumerate(track.pts)}
    for ordinal, frame in enumerate(container.decode(stream)):
        index = ordinal if index_of is None else index_of.get(frame.pts)
        if index not in wanted:
            continue
        if frame.is_corrupt:
            raise DecodeError(track.path, "corrupt", f"the frame at {track.times_us[index] / 1e6:.3f} s is damaged")
        image = np.rot90(frame.to_ndarray(format="rgb24"), track.rotation // 90)
        if image.shape != (track.probe.height, track.probe.width, 3):
            raise DecodeError(track.path, "size changes", f"at {track.times_us[index] / 1e6:.3f} s")
        yield index, image


def _missing(track: Track, index: int) -> DecodeError:
    return DecodeError(track.path, "missing frame", f"at {track.times_us[index] / 1e6:.3f} s")


def decord_reader(track: Track) -> Any | None:
    """The reader of decord, if it opens the file and sees the same frames at the same times; else None.

    Only where its seeks are exact: in open groups of pictures and in transport streams it gives neighbours of the
    frames asked for.
    """
    if not track.closed:
        return None
    try:
        import decord
    except ImportError:  # no wheels for arm64
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        # Without fault_tol=0 a damaged frame is silently replaced by its neighbour.
        reader = decord.VideoReader(str(track.path), num_threads=THREADS, fault_tol=0)
        # decord also lists the frames that an edit list hides.
        if len(reader) != track.probe.frames:
            return None
        times_s = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    except (RuntimeError, decord.DECORDError):
        return None
    differences = np.abs(times_s - times_s[0] - track.times_us / 1e6)
    return reader if float(differences.max()) < SAME_TIME_S else None


def decord_frames(track: Track, reader: Any, wanted: list[int], batch: int) -> Iterator[Frame]:
    """The frames with these rising indices, decoded `batch` at a time; ends early where decord fails."""
    import decord

    for start in range(0, len(wanted), batch):
        try:
            frames = reader.get_batch(wanted[start : start + batch]).asnumpy()
        except (RuntimeError, decord.DECORDError):
            return
        if frames.shape[1:] != (track.probe.height, track.probe.width, 3):
            return
        yield from frames
