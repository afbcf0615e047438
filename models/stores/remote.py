"""Any other kind of URL that fsspec knows (gs, abfs, hf, http, …): whole files, without conditional creation."""

# `Store` says what each method does.
# ruff: noqa: D102

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rayramid.models.errors import UserError
from rayramid.models.stores.local import place
from rayramid.models.stores.store import MissingError, Stat

PIECE_BYTES = 1 << 20


class RemoteStore:
    """Reads and writes through fsspec, where the protocol can; object stores show a file when it is whole.

    What datasets and jobs rest on, creating a file only once, fsspec has not: `create` is refused.
    """

    def read(self, url: str) -> bytes:
        with _opened(url) as (files, path):
            return bytes(files.cat_file(path))

    def read_range(self, url: str, start: int, length: int) -> bytes:
        with _opened(url) as (files, path):
            return bytes(files.cat_file(path, start=start, end=start + length))

    def write(self, url: str, data: bytes) -> None:
        with _opened(url) as (files, path):
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            files.pipe_file(path, data)

    def create(self, url: str, data: bytes) -> bool:
        raise UserError(f"{url}: files can't be created exactly once there; use a local folder or s3://")

    def stat(self, url: str) -> Stat | None:
        with _opened(url) as (files, path):
            if not files.isfile(path):
                return None
            return Stat(int(files.size(path)), str(files.ukey(path)))

    def list_files(self, url: str) -> Iterator[str]:
        with _opened(url) as (files, path):
            root = path.rstrip("/")
            yield from sorted(url.rstrip("/") + name[len(root) :] for name in files.find(root))

    def list_stats(self, url: str) -> Iterator[tuple[str, Stat]]:
        return ((file, found) for file in self.list_files(url) if (found := self.stat(file)) is not None)

    def delete(self, url: str) -> None:
        with _opened(url) as (files, path):
            if files.isfile(path):
                files.rm_file(path)

    def sweep(self, url: str, older_than_s: float) -> int:
        return 0

    def upload(self, path: Path, url: str) -> None:
        with _opened(url) as (files, name):
            files.makedirs(name.rpartition("/")[0], exist_ok=True)
            files.put_file(str(path), name)

    def download(self, url: str, path: Path) -> None:
        with _opened(url) as (files, name), files.open(name, "rb") as source:
            place(path, lambda file: [file.write(piece) for piece in iter(lambda: source.read(PIECE_BYTES), b"")])


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, str]]:
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url)
    except ValueError as error:
        raise UserError(f"{url}: this kind of URL is not known; use a path, s3:// or https://") from error
    except ImportError as error:
        raise UserError(f"{url}: it needs another package: {error}") from error
    try:
        yield files, path
    except FileNotFoundError as error:
        raise MissingError(f"{url}: no such file") from error
    except PermissionError as error:
        raise UserError(f"{url}: access denied") from error
    except NotImplementedError as error:
        raise UserError(f"{url}: can only be read; write to a local folder or to s3://") from error
    except OSError as error:
        raise UserError(f"{url}: can't be reached: {error}") from error
