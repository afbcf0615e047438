"""What a phase can read: the clips of its datasets, as far as planning needs them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayramid.models.history import unit_count


@dataclass(frozen=True, slots=True)
class Size:
    """What one visit of a clip adds to a packed sequence.

    Attributes:
        tokens: text, context and targets.
        flops: floating-point operations, forward and backward, nothing recomputed.
    """

    tokens: int
    flops: float


# (latents, height, width, text tokens, first unit, units) of a visit -> its size; height and width of the latent.
Measure = Callable[[int, int, int, int, int, int], Size]


@dataclass(frozen=True, slots=True)
class Clip:
    """One latent and the captions it may be shown with.

    Attributes:
        id: identity of the latent.
        latents: its length.
        height: of the latent.
        width: of the latent.
        units: how many units it has.
        captions: identity and number of text tokens of each caption.
    """

    id: str
    latents: int
    height: int
    width: int
    units: int
    captions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class ClipTable:
    """The videos, or the images, of one dataset.

    Attributes:
        root: which of the phase's datasets.
        kind: what they are.
        table: columns latent_id, t, h, w, caption_ids, text_lens, one row per clip.
        rows: their rows in the dataset's index.
        weight: visits per epoch.
        scale: how many clips a row stands for; more than one where a dry run counts with an outline.
        empty_caption: identity and number of text tokens of the empty prompt.
        frames_per_unit: latents per unit after the first; None when a clip is one unit.
        measure: the size of a visit.
    """

    root: int
    kind: Literal["video", "image"]
    table: pa.Table
    rows: Sequence[int]
    weight: float
    empty_caption: tuple[str, int]
    frames_per_unit: int | None
    measure: Measure
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def clips(self) -> int:
        """How many there are."""
        return round(len(self) * self.scale)

    @property
    def visits(self) -> float:
        """Of all clips in one epoch."""
        return len(self) * self.scale * self.weight

    @cached_property
    def _sizes(self) -> tuple[np.ndarray, ...]:
        return tuple(self.table.column(name).to_numpy() for name in ("t", "h", "w"))

    @cached_property
    def longest_text(self) -> int:
        """Tokens of the longest caption, or of the empty prompt."""
        lengths = pc.max(pc.list_flatten(self.table.column("text_lens"))).as_py()
        return max(lengths or 0, self.empty_caption[1])

    def clip(self, i: int) -> Clip:
        """The `i`-th clip."""
        t, h, w = (int(column[i]) for column in self._sizes)
        ids, lengths = (self.table.column(name)[i].as_py() for name in ("caption_ids", "text_lens"))
        latent_id = self.table.column("latent_id")[i].as_py()
        return Clip(latent_id, t, h, w, self.units(t), tuple(zip(ids, lengths, strict=True)))

    def units(self, latents: int) -> int:
        """Units of a clip of so many latents; latents at its end that make no whole unit don't count."""
        beyond = (latents - 1) % self.frames_per_unit if self.frames_per_unit else 0
        return unit_count(latents - beyond, self.frames_per_unit)

    @cached_property
    def mean_text(self) -> float:
        """Tokens of a caption, on average."""
        return float(pc.mean(pc.list_flatten(self.table.column("text_lens"))).as_py() or 0)

    def shapes(self) -> dict[tuple[int, int, int], int]:
        """The different latent sizes (t, h, w), and how many rows have each."""
        sizes, counts = np.unique(np.stack(self._sizes, axis=1), axis=0, return_counts=True)
        return {(int(t), int(h), int(w)): int(count) for (t, h, w), count in zip(sizes, counts, strict=True)}


@dataclass(frozen=True, eq=False)
class Index:
    """All clips that a phase draws from, by dataset."""

    videos: tuple[ClipTable, ...]
    images: tuple[ClipTable, ...]

    @property
    def clips(self) -> int:
        """How many there are."""
        return sum(table.clips for table in self.videos + self.images)
