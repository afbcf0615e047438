"""What a folder or file of weights holds, whatever its layout: `rayramid weights inspect`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from rayramid.models import storage
from rayramid.models.card import CARD, load_card
from rayramid.models.errors import UserError
from rayramid.models.importers.published import NAMES
from rayramid.models.weights import INDEX_SUFFIX, read_entries

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class File:
    """One weight file, or one sharded set by its index."""

    path: str
    parameters: int
    dtypes: dict[str, int]
    tensors: dict[str, list[int]]


@dataclass(frozen=True)
class Inspection:
    """All weights below a URL; `card` is the checkpoint's, None where there is none."""

    url: str
    card: dict[str, object] | None
    files: list[File]

    @property
    def parameters(self) -> int:
        """Numbers stored in all files."""
        return sum(file.parameters for file in self.files)

    def text(self) -> str:
        """A line per file for people; tensors are listed when there is one file only."""
        lines = [] if self.card is None else [f"rayramid model, preset {self.card['preset']}, step {self.card['step']}"]
        for file in self.files:
            dtypes = ", ".join(f"{count} {dtype}" for dtype, count in file.dtypes.items())
            lines.append(f"{file.path}: {file.parameters:,} parameters in {len(file.tensors)} tensors ({dtypes})")
        if len(self.files) == 1:
            lines += [f"  {key} {shape}" for key, shape in self.files[0].tensors.items()]
        return "\n".join(lines)


def inspect_weights(url: str) -> Inspection:
    """Look into every weight file at or below `url`; of safetensors, headers alone are read.

    Raises:
        UserError: there is none, or one is truncated; names it.
    """
    if url.endswith((*SUFFIXES, INDEX_SUFFIX)):
        return Inspection(url, None, [_file(url.rsplit("/", 1)[-1], url)])
    files = [_file(storage.relative(url, file), file) for file in _weight_files(url)]
    if not files:
        raise UserError(f"{url}: holds no weights ({', '.join(SUFFIXES)})")
    has_card = storage.exists(storage.join(url, CARD))
    card = load_card(url) if has_card else None
    return Inspection(url, None if card is None else {"preset": card.preset, "step": card.step, **card.dit}, files)


def _weight_files(url: str) -> Iterator[str]:
    """Whole files and indices; not the shards of an index."""
    files = list(storage.list_files(url))
    sharded = {file.rpartition("/")[0] for file in files if file.endswith(INDEX_SUFFIX)}
    for file in files:
        folder, _, name = file.rpartition("/")
        shard = folder in sharded and name not in NAMES
        if file.endswith(INDEX_SUFFIX) or (file.endswith(SUFFIXES) and not shard):
            yield file


def _file(path: str, url: str) -> File:
    entries = read_entries(url)
    dtypes = Counter(entry.dtype for entry in entries.values())
    shapes = {key: list(entry.shape) for key, entry in entries.items()}
    return File(path, sum(prod(shape) for shape in shapes.values()), dict(dtypes), shapes)
