"""Local files: written beside their place and moved there, so nobody ever sees half a file."""

# `Store` says what each method does.
# ruff: noqa: D102

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from rayramid.models.errors import UserError
from rayramid.models.stores.shipped import shipped_path
from rayramid.models.stores.store import MissingError, Stat

TEMPORARY = ".part-"


def path_of(url: str) -> Path:
    """The path that a plain path, a `file://` URL or a `rayramid://` URL names."""
    if url.startswith("rayramid:"):
        return shipped_path(url)
    if not url.startswith("file:"):
        return Path(url).expanduser()
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UserError(f"{url}: a file URL needs an absolute path on this machine, as in file:///data/videos")
    return Path(unquote(parts.path))


class LocalStore:
    """Plain paths and `file://` URLs."""

    def read(self, url: str) -> bytes:
        with plain_errors(url):
            return path_of(url).read_bytes()

    def read_range(self, url: str, start: int, length: int) -> bytes:
        with plain_errors(url), path_of(url).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def write(self, url: str, data: bytes) -> None:
        with plain_errors(url):
            place(path_of(url), lambda file: file.write(data))

    def create(self, url: str, data: bytes) -> bool:
        path = path_of(url)
        with plain_errors(url), _staged(path, lambda file: file.write(data)) as staged:
            try:
                # A hard link fails if the name is taken, and shows the whole content when it succeeds.
                os.link(staged, path)
            except FileExistsError:
                return False
            _sync_folder(path.parent)
            return True

    def stat(self, url: str) -> Stat | None:
        with plain_errors(url):
            try:
                # One call: between two somebody may delete the file.
                status = path_of(url).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return Stat(status.st_size, str(status.st_mtime_ns)) if S_ISREG(status.st_mode) else None

    def list_files(self, url: str) -> Iterator[str]:
        root = path_of(url)
        names = []
        for folder, _, files in os.walk(root, followlinks=True):
            inside = Path(folder).relative_to(root)
            names += [(inside / file).as_posix() for file in files if TEMPORARY not in file]
        # Sorted as one string, the order in which S3 lists keys.
        yield from (str(root / name) for name in sorted(names))

    def list_stats(self, url: str) -> Iterator[tuple[str, Stat]]:
        # A file may go while its folder is listed.
        return ((file, found) for file in self.list_files(url) if (found := self.stat(file)) is not None)

    def delete(self, url: str) -> None:
        with plain_errors(url):
            path_of(url).unlink(missing_ok=True)

    def sweep(self, url: str, older_than_s: float) -> int:
        oldest, left = time.time() - older_than_s, 0
        for folder, _, files in os.walk(path_of(url)):
            for path in (Path(folder, file) for file in files if TEMPORARY in file):
                if path.stat().st_mtime <= oldest:
                    path.unlink(missing_ok=True)
                    left += 1
        return left

    def upload(self, path: Path, url: str) -> None:
        with plain_errors(str(path)), path.open("rb") as source, plain_errors(url):
            place(path_of(url), lambda file: shutil.copyfileobj(source, file, 1 << 20))

    def download(self, url: str, path: Path) -> None:
        self.upload(path_of(url), str(path))


def staging(path: Path) -> Path:
    """A new name beside `path`, which no listing shows."""
    return path.with_name(f"{path.name}{TEMPORARY}{uuid.uuid4().hex[:12]}")


def place(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Writes `path` by `fill(file)`: beside it, synced, then renamed over it."""
    with _staged(path, fill) as staged:
        staged.replace(path)
        _sync_folder(path.parent)


@contextmanager
def _staged(path: Path, fill: Callable[[BinaryIO], object]) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = staging(path)
    try:
        with staged.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        yield staged
    finally:
        staged.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # A rename is durable only when the folder that holds the name is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def plain_errors(url: str) -> Iterator[None]:
    """Turns the system's errors about a file into UserErrors of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingError(f"{url}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{url}: is a folder, a file is needed") from error
    except (NotADirectoryError, FileExistsError) as error:
        raise UserError(f"{url}: {error.filename} is a file, a folder is needed") from error
    except PermissionError as error:
        raise UserError(f"{url}: permission denied; choose a place that this user may read and write") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise UserError(f"{url}: the file system is read-only; choose another place") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{url}: the disk is full") from error
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{url}: the name is too long") from error
        raise
