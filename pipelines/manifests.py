"""Lists of videos as the field publishes them: which column says what, and where the file is expected to lie.

An entry is one video or, where the list names times, one range of it.
"""

import ast
import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from rayramid.models import storage
from rayramid.models.errors import UserError

Row = Mapping[str, Any]

_BATCH = 1024


@dataclass(frozen=True)
class Entry:
    """What a list says of a clip: its file (relative to the videos' folder, or a URL), and what is known besides."""

    video: str
    caption: str | None = None
    licence: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None


def read_manifest(manifest: str, kind: str) -> Iterator[Entry]:
    """The entries of a list of some kind, which is a key of READERS.

    Raises:
        UserError: it is no list, or a row lacks a column, by name.
    """
    reader = READERS[kind]
    if kind == "finetrainers" and PurePosixPath(manifest).suffix == ".txt":
        yield from _two_files(manifest)
        return
    with _opened(manifest) as rows:
        number = 0
        try:
            for number, row in enumerate(rows, start=1):
                if not isinstance(row, dict):
                    raise UserError(f"{manifest}: row {number} is no object")
                yield from reader(row)
        except KeyError as error:
            raise UserError(f"{manifest}: row {number} has no {error.args[0]!r}; is it a list of {kind}?") from None
        except (csv.Error, json.JSONDecodeError, UnicodeDecodeError, pa.ArrowException) as error:
            raise UserError(f"{manifest}: not a manifest of jsonl, csv or Parquet: {error}") from None
        except (SyntaxError, ValueError) as error:
            raise UserError(f"{manifest}: row {number}: {error}") from None


def moment_ms(text: str) -> int:
    """Milliseconds of `H:MM:SS.fff`, `MM:SS.fff` or seconds."""
    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", str(text).strip())
    if found is None:
        raise ValueError(f"{text!r} is no time like 0:00:12.500")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return round(1000 * (3600 * hours + 60 * minutes + seconds))


def _plain(row: Row) -> Iterator[Entry]:
    start, end = row.get("start_s"), row.get("end_s")
    yield Entry(
        _text(row, "video"),
        row.get("caption"),
        row.get("licence"),
        None if start in (None, "") else round(1000 * float(start)),
        None if end in (None, "") else round(1000 * float(end)),
    )


def _webvid(row: Row) -> Iterator[Entry]:
    # As its download scripts lay the files out.
    yield Entry(f"{_text(row, 'page_dir')}/{_text(row, 'videoid')}.mp4", _text(row, "name"))


def _openvid(row: Row) -> Iterator[Entry]:
    yield Entry(_text(row, "video"), _text(row, "caption"))


def _panda70m(row: Row) -> Iterator[Entry]:
    """One row per video; its cells are lists as Python writes them."""
    video = f"{_text(row, 'videoID', 'video_id')}.mp4"
    times, captions = (ast.literal_eval(_text(row, name)) for name in ("timestamp", "caption"))
    if len(times) != len(captions):
        raise ValueError(f"{len(times)} times but {len(captions)} captions")
    for (start, end), caption in zip(times, captions, strict=True):
        yield Entry(video, caption, None, moment_ms(start), moment_ms(end))


def _koala36m(row: Row) -> Iterator[Entry]:
    """One row per clip: `<video>_<number>` as its name, the times as a list."""
    name = _text(row, "videoID", "video_id")
    start, end = ast.literal_eval(_text(row, "timestamp"))
    # The file is the whole video, which the address names; without one the name does.
    address = re.search(r"(?:v=|youtu\.be/)([\w-]{11})", str(row.get("url") or ""))
    video = address[1] if address else re.sub(r"_\d+$", "", name)
    yield Entry(f"{video}.mp4", _text(row, "caption"), None, moment_ms(start), moment_ms(end))


def _opensora(row: Row) -> Iterator[Entry]:
    yield Entry(_text(row, "path"), row.get("text"))


def _finetrainers(row: Row) -> Iterator[Entry]:
    yield Entry(_text(row, "file_name", "video"), _text(row, "caption", "prompt", "text"))


def _pyramid_flow(row: Row) -> Iterator[Entry]:
    yield Entry(_text(row, "video", "image"), _text(row, "text"))


READERS: Mapping[str, Callable[[Row], Iterator[Entry]]] = {
    "plain": _plain,
    "webvid": _webvid,
    "openvid-1m": _openvid,
    "panda-70m": _panda70m,
    "koala-36m": _koala36m,
    "open-sora": _opensora,
    "finetrainers": _finetrainers,
    "pyramid-flow": _pyramid_flow,
}


def _text(row: Row, *names: str) -> str:
    for name in names:
        if row.get(name) not in (None, ""):
            return str(row[name])
    raise KeyError(names[0])


def _two_files(videos: str) -> Iterator[Entry]:
    """`videos.txt` and the `prompt.txt` beside it, line by line."""
    prompts = storage.join(videos.rpartition("/")[0], "prompt.txt")
    lines = [storage.read_bytes(url).decode("utf-8-sig").splitlines() for url in (videos, prompts)]
    if len(lines[0]) != len(lines[1]):
        raise UserError(f"{videos}: {len(lines[0])} videos, but {prompts} has {len(lines[1])} lines")
    return (Entry(video.strip(), prompt.strip()) for video, prompt in zip(*lines, strict=True) if video.strip())


@contextmanager
def _opened(manifest: str) -> Iterator[Iterable[Any]]:
    """The rows, which are not all held in memory."""
    local = storage.local_path(manifest)
    with tempfile.TemporaryDirectory(prefix="rayramid-") as folder:
        if local is None:
            local = Path(folder) / "manifest"
            storage.download(manifest, local)
        storage.stat(str(local))
        suffix = PurePosixPath(manifest).suffix.lower()
        if suffix == ".parquet":
            yield _parquet_rows(local)
            return
        with local.open(encoding="utf-8-sig", newline="") as text:
            yield csv.DictReader(text) if suffix == ".csv" else _json_rows(text)


def _parquet_rows(path: Path) -> Iterator[Any]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            yield from batch.to_pylist()


def _json_rows(text: TextIO) -> Iterator[Any]:
    return map(json.loads, filter(str.strip, text))
