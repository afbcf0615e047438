"""Files at any URL: a path or `file://`, `s3://`, `rayramid://` for what is shipped, and whatever fsspec knows.

Every write is atomic: readers see the old file, the new file, or none. Users' mistakes raise `UserError` in one line.
"""

import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rayramid.models.errors import UserError
from rayramid.models.stores.local import LocalStore, path_of
from rayramid.models.stores.remote import RemoteStore
from rayramid.models.stores.s3 import S3Store, split
from rayramid.models.stores.shipped import SCHEME as SHIPPED
from rayramid.models.stores.store import MissingError, Stat, Store

TRANSFERS = 8
LOCAL, S3, REMOTE = LocalStore(), S3Store(), RemoteStore()
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def join(url: str, *parts: str) -> str:
    """`url/part/part`; slashes at the seams are collapsed."""
    _store(url)
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(url: str) -> str:
    """The URL as any process may use it: local paths expanded and made absolute, others checked and unchanged."""
    path = local_path(url)
    if path is not None and not url.startswith(SHIPPED):
        return str(path.absolute())
    if url.startswith("s3://"):
        split(url)
    return url


def local_path(url: str) -> Path | None:
    """The path of a local URL, None of any other."""
    return path_of(url) if isinstance(_store(url), LocalStore) else None


def read_bytes(url: str) -> bytes:
    """The whole file; MissingError if there is none."""
    return _store(url).read(url)


def read_range(url: str, start: int, length: int) -> bytes:
    """`length` bytes from byte `start`, fewer where the file ends."""
    return _store(url).read_range(url, start, length)


def write_atomic(url: str, data: bytes) -> None:
    """Writes or replaces the file in one step; makes the folders above it."""
    _store(url).write(url, data)


def create(url: str, data: bytes) -> bool:
    """Writes the file unless there is one already. Of many callers exactly one gets True: the one that wrote it."""
    return _store(url).create(url, data)


def exists(url: str) -> bool:
    """Whether there is a file (a folder is not one)."""
    return _store(url).stat(url) is not None


def stat(url: str) -> Stat:
    """Size in bytes, and a version that changes with the content."""
    found = _store(url).stat(url)
    if found is None:
        raise MissingError(f"{url}: no such file")
    return found


def size(url: str) -> int:
    """Size in bytes."""
    return stat(url).size


def list_files(url: str, suffix: str = "") -> Iterator[str]:
    """Every file below a folder whose name ends in `suffix`, sorted; none if the folder is missing or empty."""
    return (file for file in _store(url).list_files(url) if file.endswith(suffix))


def list_stats(url: str) -> Iterator[tuple[str, Stat]]:
    """Every file below a folder as `list_files` gives it, with its size and version: as cheap as a listing on S3."""
    return _store(url).list_stats(url)


def delete(url: str) -> None:
    """Removes a file; a missing one is fine."""
    _store(url).delete(url)


def delete_tree(url: str) -> None:
    """Removes a folder with all that is in it; a missing one is fine."""
    path = local_path(url)
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)
    else:
        _together(delete, list(list_files(url)))


def copy_files(source: str, target: str, names: list[str]) -> None:
    """Copies small files from folder to folder, several at a time; MissingError if one is missing."""
    _together(lambda name: write_atomic(join(target, name), read_bytes(join(source, name))), names)


def presign(url: str, seconds: int, media_type: str, file_name: str, *, method: str = "GET") -> str | None:
    """A URL by which anybody gets the file for so many seconds; None where the store has no such thing.

    Args:
        url: the file; it need not exist yet.
        seconds: how long the URL is valid.
        media_type: what the answer says it is.
        file_name: what a browser saves it as.
        method: GET or HEAD.
    """
    store = _store(url)
    return store.presign(url, seconds, media_type, file_name, method) if isinstance(store, S3Store) else None


def upload(path: str | Path, url: str) -> None:
    """Copies a local file to a URL, in parts when large; seen only when complete."""
    _store(url).upload(Path(path), url)


def download(url: str, path: str | Path) -> None:
    """Copies a file to a local path; seen only when complete."""
    _store(url).download(url, Path(path))


def sync_down(url: str, folder: str | Path) -> None:
    """Copies every file below `url` into a local folder, keeping the tree; MissingError if there is none."""
    names = [relative(url, file) for file in list_files(url)]
    if not names:
        raise MissingError(f"{url}: no such folder, or it is empty")
    _together(lambda name: download(join(url, name), Path(folder) / name), names)


def sync_up(folder: str | Path, url: str) -> None:
    """Copies every file below a local folder to `url`, keeping the tree."""
    names = [relative(str(folder), file) for file in list_files(str(folder))]
    _together(lambda name: upload(Path(folder) / name, join(url, name)), names)


def relative(url: str, file: str) -> str:
    """The part of a listed `file` below its folder `url`."""
    path = local_path(url)
    return file.removeprefix(f"{str(path if path is not None else url).rstrip('/')}/")


def check_writable(url: str) -> None:
    """Raises a UserError unless files can be written below `url`; leaves nothing behind."""
    if url.startswith(SHIPPED):
        raise UserError(f"{url}: part of the installed package, which nothing is written into; name another place")
    probe = join(url, f"write-check-{uuid.uuid4().hex[:12]}")
    write_atomic(probe, b"")
    delete(probe)


def sweep(url: str, older_than_s: float) -> int:
    """Deletes what uploads below a folder left when their writers died so many seconds ago or earlier; their number."""
    return _store(url).sweep(url, older_than_s)


def _store(url: str) -> Store:
    if not url:
        raise UserError("an empty path or URL: name a file or folder")
    scheme = SCHEME.match(url)
    if scheme is None or scheme[1] in ("file", "rayramid"):
        return LOCAL
    if not url.startswith(f"{scheme[1]}://"):
        raise UserError(f"{url}: a URL has two slashes: {scheme[1]}://…")
    return S3 if scheme[1] == "s3" else REMOTE


def _together(copy: Callable[[str], None], names: list[str]) -> None:
    with ThreadPoolExecutor(TRANSFERS) as pool:
        for _ in pool.map(copy, names):
            pass
