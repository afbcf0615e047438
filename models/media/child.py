"""Decoding in a process of its own: a file that hangs or kills its decoder costs a deadline, not the worker.

Native decoders can hang while they hold the interpreter's lock, so only another process can end them. The child
imports no torch and is a plain program (not `multiprocessing`), so that it never runs the parent's main module.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayramid.models.media.errors import DecodeError
from rayramid.models.media.track import Probe

START_S = 60.0


class DecodeChild:
    """Reads videos in a child process that starts at the first call and is killed when an answer takes too long.

    Each answer (a probe, one window of frames) has `deadline_s` seconds. After a DecodeError the object goes on with
    the next file. One request at a time: finish or close a read before the next.
    """

    def __init__(self, deadline_s: float = 30.0) -> None:
        self.deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._reading = False

    def probe(self, path: str | Path) -> Probe:
        """As `read.probe`."""
        self._ask(path, "probe")
        return self._answer(path)

    def frame_times(self, path: str | Path) -> NDArray[np.float64]:
        """As `read.frame_times`."""
        self._ask(path, "frame_times")
        return self._answer(path)

    def read_frames(
        self,
        path: str | Path,
        start_ms: float = 0,
        end_ms: float | None = None,
        fps: float | None = None,
        window: int = 64,
        size: tuple[int, int] | None = None,
    ) -> Iterator[NDArray[np.uint8]]:
        """As `read.read_frames`; the next window is decoded while the caller works on this one."""
        self._ask(path, "read_frames", start_ms, end_ms, fps, window, size)
        self._reading = True
        try:
            while (shape := self._answer(path)) is not None:
                frames = np.empty(shape, np.uint8)
                assert self._connection is not None
                self._connection.recv_bytes_into(frames.reshape(-1).data)
                self._ask(path, "next")
                yield frames
            self._reading = False
        except DecodeError:
            self._reading = False
            raise
        finally:
            # The caller stopped in the middle: nobody takes the window under way.
            if self._reading:
                self.close()

    def close(self) -> None:
        """Ends the child; the next call starts another."""
        self._reading = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> "DecodeChild":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, path: str | Path, *request: Any) -> None:
        assert request[0] == "next" or not self._reading, "finish or close the read before the next request"
        if self._connection is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send((str(path), *request))
        except (BrokenPipeError, ConnectionResetError) as error:
            self.close()
            raise DecodeError(path, "crashed", "the decoder's process ended between two requests") from error

    def _answer(self, path: str | Path) -> Any:
        assert self._connection is not None
        assert self._process is not None
        try:
            if not self._connection.poll(self.deadline_s):
                self.close()
                raise DecodeError(path, "deadline", f"no answer in {self.deadline_s:g} s")
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            process = self._process
            self.close()
            raise DecodeError(path, "crashed", f"the decoder's process ended with code {process.returncode}") from error
        if isinstance(answer, DecodeError):
            raise answer
        return answer

    def _start(self) -> None:
        here, there = Pipe()
        # The parent's own import path, without the current folder (-P), whose files could shadow the standard library.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(there.fileno()), str(self.deadline_s)],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        there.close()
        self._connection = here
        if not here.poll(START_S) or here.recv() != "ready":
            self.close()
            raise RuntimeError("the decoder's process does not start")


def _serve(connection: Connection, deadline_s: float) -> None:
    """The child: answers requests until the parent is gone."""
    from rayramid.models.media.read import Video

    connection.send("ready")
    video: Video | None = None
    opened: tuple[str, int] | None = None
    windows: Iterator[NDArray[np.uint8]] = iter(())
    while True:
        try:
            path, request, *arguments = connection.recv()
        except EOFError:
            return
        # If the parent was killed while the decoder hangs, the alarm ends this process, whoever holds the lock.
        signal.setitimer(signal.ITIMER_REAL, 2 * deadline_s)
        frames = None
        try:
            if request != "next" and (video is None or opened != (path, _changed_ns(path))):
                video, opened = Video(path), (path, _changed_ns(path))
            assert video is not None
            if request == "probe":
                answer: Any = video.probe
            elif request == "frame_times":
                answer = video.times_ms
            else:
                windows = video.frames(*arguments) if request == "read_frames" else windows
                frames = next(windows, None)
                answer = None if frames is None else frames.shape
        except DecodeError as error:
            answer = error
        except Exception as error:  # the boundary of one file: whatever a decoder raises is that file's failure
            answer = DecodeError(path, "crashed", f"{type(error).__name__}: {error}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send(answer)
        if frames is not None:
            connection.send_bytes(frames.reshape(-1).data)


def _changed_ns(path: str) -> int:
    return Path(path).stat().st_mtime_ns if Path(path).is_file() else 0


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), float(sys.argv[2]))
