"""Room on a worker's own disk: copies of sources, files on their way to the dataset."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PREFIX = "rayramid-scratch-"


class Scratch:
    """A folder that goes with its owner; what a killed process left is removed by the next one on the machine.

    Whoever lives holds a lock in its folder, which the system releases at any death.
    """

    def __init__(self) -> None:
        for folder in _abandoned():
            shutil.rmtree(folder, ignore_errors=True)
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX)
        self.path = Path(self._folder.name)
        # Locked before it has its name, so that nobody takes it for an abandoned one.
        unnamed = self.path / "locking"
        self._lock = unnamed.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self.path / "lock")

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()
        self._lock.close()


def _abandoned() -> Iterator[Path]:
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/lock"):
        # Others may remove it, or it may belong to another user.
        with suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield lock.parent
