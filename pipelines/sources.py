"""From the spec's sources to rows: one per file, with an identity that changes when the file does."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Literal

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.sprites.clip import EDITION, SCHEME, SpritesClip
from rayramid.models.stores.store import MissingError
from rayramid.pipelines.identity import digest, hash_share
from rayramid.pipelines.spec import Source, Sprites

# fmt: off
VIDEOS = frozenset([
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".3gp", ".ogv",
])
# fmt: on
IMAGES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp"])

_LOOKUPS = 16


@dataclass(frozen=True)
class SourceFile:
    """One file to be cut into clips. `source_id` follows from uri, size and version; `split` from the name alone."""

    source_id: str
    uri: str
    name: str
    kind: Literal["video", "image"]
    split: Literal["train", "val"]
    licence: str | None
    caption: str | None


@dataclass(frozen=True)
class _Listed:
    uri: str
    name: str
    licence: str | None
    caption: str | None


def list_sources(sources: Iterable[Source], val_share: float) -> list[SourceFile]:
    """Every file of all sources, each once, in a stable order.

    A file that a manifest names and that is missing is listed too: it fails as a row of its own when it is cut.

    Raises:
        UserError: a source has no file at all, a package is not installed, a manifest is broken.
    """
    listed = [entry for source in sources for entry in _non_empty(source)]
    with ThreadPoolExecutor(_LOOKUPS) as pool:
        identities = list(pool.map(_identity, (entry.uri for entry in listed)))
    files: dict[str, SourceFile] = {}
    for entry, identity in zip(listed, identities, strict=True):
        source_id = digest("source", entry.uri, *identity)
        files.setdefault(
            source_id,
            SourceFile(
                source_id=source_id,
                uri=entry.uri,
                name=entry.name,
                kind="image" if _is_image(entry.uri) else "video",
                split="val" if hash_share(entry.name) < val_share else "train",
                licence=entry.licence,
                caption=entry.caption,
            ),
        )
    return sorted(files.values(), key=lambda file: (file.name, file.source_id))


def _non_empty(source: Source) -> list[_Listed]:
    if source.folder is not None:
        place, listed = source.folder, list(_folder(source, source.folder))
    elif source.manifest is not None:
        place, listed = source.manifest, list(_manifest(source, source.manifest))
    elif source.package is not None:
        place, listed = source.package, list(_package(source, source.package))
    else:
        assert source.sprites is not None
        place, listed = "sprites", list(_sprites(source, source.sprites))
    if not listed:
        raise UserError(f"{place}: no video or image here")
    return listed


def _folder(source: Source, folder: str) -> Iterator[_Listed]:
    for uri in storage.list_files(folder):
        if _suffix(uri) in VIDEOS | IMAGES:
            yield _Listed(uri, storage.relative(folder, uri), source.licence, source.caption)


def _manifest(source: Source, manifest: str) -> Iterator[_Listed]:
    text = storage.read_bytes(manifest).decode("utf-8-sig")
    try:
        if _suffix(manifest) == ".csv":
            rows = list(csv.DictReader(io.StringIO(text)))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (csv.Error, json.JSONDecodeError) as error:
        raise UserError(f"{manifest}: not a manifest of jsonl or csv: {error}") from None
    for number, row in enumerate(rows, start=1):
        video = row.get("video") if isinstance(row, dict) else None
        if not video:
            raise UserError(f"{manifest}: row {number} has no 'video'")
        uri = video if "://" in video or video.startswith("/") else storage.join(_parent(manifest), video)
        yield _Listed(uri, video, row.get("licence") or source.licence, row.get("caption") or source.caption)


def _package(source: Source, package: str) -> Iterator[_Listed]:
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"package {package}: not installed; try `pip install {package}`") from None
    for file in files:
        if _suffix(str(file)) in VIDEOS:
            uri = str(Path(str(file.locate())).resolve())
            yield _Listed(uri, file.name, source.licence, source.caption)


def _sprites(source: Source, sprites: Sprites) -> Iterator[_Listed]:
    numbers = sprites.model_dump(exclude={"clips"})
    for index in range(sprites.clips):
        clip = SpritesClip(index=index, **numbers)
        name = f"sprites-{index:06d}-{clip.seed}-{clip.width}x{clip.height}x{clip.frames}"
        yield _Listed(clip.uri, name, source.licence or "CC0-1.0", clip.caption)


def _identity(uri: str) -> tuple[int, str]:
    if uri.startswith(SCHEME):
        return (EDITION, "drawn")
    try:
        found = storage.stat(uri)
    except MissingError:
        return (-1, "missing")
    return (found.size, found.version)


def _is_image(uri: str) -> bool:
    return SpritesClip.at(uri).frames == 1 if uri.startswith(SCHEME) else _suffix(uri) in IMAGES


def _parent(url: str) -> str:
    return url.rpartition("/")[0]


def _suffix(url: str) -> str:
    return PurePosixPath(url).suffix.lower()
