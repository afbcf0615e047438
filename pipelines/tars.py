"""Files inside WebDataset tars, named and read where they lie: no tar is unpacked.

A member's URI is `<tar>#<offset>,<size>,<name>`: its bytes are one ranged read.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rayramid.models import storage
from rayramid.models.errors import UserError

_MEMBER = re.compile(r"(?P<tar>.+\.tar)#(?P<offset>\d+),(?P<size>\d+),(?P<name>.+)")
_CAPTIONS = ("txt", "json", "caption")


@dataclass(frozen=True)
class Member:
    """A file in a tar."""

    tar: str
    offset: int
    size: int
    name: str

    @property
    def uri(self) -> str:
        """What finds it again."""
        return f"{self.tar}#{self.offset},{self.size},{self.name}"

    def read(self) -> bytes:
        """Its bytes."""
        return storage.read_range(self.tar, self.offset, self.size)


def member_of(uri: str) -> Member | None:
    """The member that a URI names, None if it names a file of its own."""
    found = _MEMBER.fullmatch(uri)
    return Member(found["tar"], int(found["offset"]), int(found["size"]), found["name"]) if found else None


def samples(tar: str, suffixes: Iterable[str]) -> Iterator[tuple[Member, str | None]]:
    """Members with these suffixes, each with the caption beside it: `<key>.txt`, or `caption` or `text` of a `.json`.

    A sample's files have one key, their name up to the first dot of its last part, and stand together.
    """
    wanted = frozenset(suffixes)
    key = ""
    media: list[Member] = []
    caption: str | None = None
    try:
        with tarfile.open(fileobj=io.BufferedReader(_Ranged(tar), 1 << 16), mode="r:") as file:
            for info in file:
                if not info.isfile():
                    continue
                folder, slash, base = info.name.rpartition("/")
                stem, _, extension = base.partition(".")
                if f"{folder}{slash}{stem}" != key:
                    yield from ((member, caption) for member in media)
                    key, media, caption = f"{folder}{slash}{stem}", [], None
                member = Member(tar, info.offset_data, info.size, info.name)
                if f".{extension.rpartition('.')[2].lower()}" in wanted:
                    media.append(member)
                elif extension in _CAPTIONS:
                    caption = _caption(member, extension) or caption
            yield from ((member, caption) for member in media)
    except tarfile.TarError as error:
        raise UserError(f"{tar}: not a tar: {error}") from None


def _caption(member: Member, extension: str) -> str | None:
    text = member.read().decode("utf-8", errors="replace").strip()
    if extension != "json":
        return text or None
    fields = json.loads(text)
    return (fields.get("caption") or fields.get("text")) if isinstance(fields, dict) else None


class _Ranged(io.RawIOBase):
    """A file at any URL, read by ranges: a tar's headers are a small part of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._size = storage.size(url)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        data = storage.read_range(self._url, self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
