"""What a place for files can do; one implementation per kind of URL."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rayramid.models.errors import UserError


class MissingError(UserError):
    """There is no file at this URL."""


@dataclass(frozen=True)
class Stat:
    """A file's size in bytes and a `version` that changes with its content (etag, or mtime in ns)."""

    size: int
    version: str


class Store(Protocol):
    """Files under URLs of one kind. A file is seen whole or not at all."""

    def read(self, url: str) -> bytes:
        """All bytes."""

    def read_range(self, url: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer at the file's end."""

    def write(self, url: str, data: bytes) -> None:
        """Replaces the file in one step."""

    def create(self, url: str, data: bytes) -> bool:
        """Writes the file if there is none; True if this very call did."""

    def stat(self, url: str) -> Stat | None:
        """None if there is no file."""

    def list_files(self, url: str) -> Iterator[str]:
        """Every file below a folder, in the order of their full names."""

    def list_stats(self, url: str) -> Iterator[tuple[str, Stat]]:
        """The same with what `stat` would say of each; where a listing tells it, without asking for each."""

    def delete(self, url: str) -> None:
        """Removes the file; a missing one is fine."""

    def upload(self, path: Path, url: str) -> None:
        """Copies a local file here in one step."""

    def download(self, url: str, path: Path) -> None:
        """Copies the file to a local path in one step."""

    def sweep(self, url: str, older_than_s: float) -> int:
        """Deletes unfinished uploads below a folder that began so long ago; returns how many."""
