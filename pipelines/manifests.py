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
# Panda-70M has cells of more than the csv module's 128 KiB: all captions of an hour-long video.
csv.field_size_limit(2**31 - 1)
# As finetrainers looks for them beside its list of videos.
_PROMPTS = ("captions.txt", "caption.txt", "prompt.txt", "prompts.txt")


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
    """`videoid, contentUrl, duration, page_dir, name`, the files as its download.py lays them out (m-bain/webvid).

    That one leaves out the rows without a `page_dir`, too.
    """
    if row.get("page_dir", "none") in (None, ""):
        return
    yield Entry(f"{_text(row, 'page_dir')}/{_text(row, 'videoid')}.mp4", _text(row, "name"))


def _openvid(row: Row) -> Iterator[Entry]:
    """`video, caption, aesthetic score, motion score, …`: what its DatasetFromCSV reads (NJU-PCALab/OpenVid-1M)."""
    yield Entry(_text(row, "video"), _text(row, "caption"))


def _panda70m(row: Row) -> Iterator[Entry]:
    """`videoID, url, timestamp, caption, matching_score`: a row per video, its cells are lists as Python writes them.

    As dataset_dataloading/README.md names them (snap-research/Panda-70M), `videoID` as those who read the lists do.
    """
    video = f"{_text(row, 'videoID', 'video_id')}.mp4"
    times, captions = (ast.literal_eval(_text(row, name)) for name in ("timestamp", "caption"))
    if len(times) != len(captions):
        raise ValueError(f"{len(times)} times but {len(captions)} captions")
    for (start, end), caption in zip(times, captions, strict=True):
        yield Entry(video, caption, None, moment_ms(start), moment_ms(end))


def _koala36m(row: Row) -> Iterator[Entry]:
    """`videoID, url, timestamp, caption, clarity_score, …`: a row per clip, named `<video>_<number>`, times as a list.

    The header of Koala_36M_1.csv and on (Koala-36M/Koala-36M-v1 on the hub), as those who read them spell it.
    """
    name = _text(row, "videoID", "video_id")
    start, end = ast.literal_eval(_text(row, "timestamp"))
    # The file is the whole video, which the address names; without one the name does.
    address = re.search(r"(?:v=|youtu\.be/)([\w-]{11})", str(row.get("url") or ""))
    video = address[1] if address else re.sub(r"_\d+$", "", name)
    yield Entry(f"{video}.mp4", _text(row, "caption"), None, moment_ms(start), moment_ms(end))


def _opensora(row: Row) -> Iterator[Entry]:
    """`path, text` and what its tools add: what its DatasetFromCSV reads (hpcaitech/Open-Sora, tools/datasets)."""
    yield Entry(_text(row, "path"), row.get("text"))


def _finetrainers(row: Row) -> Iterator[Entry]:
    """A metadata.csv or .jsonl of Hugging Face's VideoFolder (a-r-r-o-w/finetrainers, docs/dataset/README.md)."""
    yield Entry(_text(row, "file_name", "video"), _text(row, "caption", "prompt", "text"))


def _pyramid_flow(row: Row) -> Iterator[Entry]:
    """`video, text, latent, text_fea`, or `image, text`: as in annotation/ of jy0205/Pyramid-Flow."""
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
    """`videos.txt` and the captions in a file beside it, line by line."""
    beside = [storage.join(videos.rpartition("/")[0], name) for name in _PROMPTS]
    prompts = next((url for url in beside if storage.exists(url)), None)
    if prompts is None:
        raise UserError(f"{videos}: no captions beside it; they are expected in {' or '.join(_PROMPTS)}")
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
