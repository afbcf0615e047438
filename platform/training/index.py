"""What a phase can read: the clips of its datasets, as far as planning needs them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Size:
    """What one visit of a clip adds to a packed sequence.

    Attributes:
        tokens: text, context and targets.
        cost: floating-point operations, up to a common factor.
    """

    tokens: int
    cost: float


# (height, width, text tokens, first unit, units) of a visit -> its size; height and width of the latent.
Measure = Callable[[int, int, int, int, int], Size]


@dataclass(frozen=True, slots=True)
class Clip:
    """One latent and the captions it may be shown with.

    Attributes:
        id: identity of the latent.
        height: of the latent.
        width: of the latent.
        units: how many units it has.
        captions: identity and number of text tokens of each caption.
    """

    id: str
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
        empty_caption: identity and number of text tokens of the empty prompt.
        frames_per_unit: latents per unit after the first.
        measure: the size of a visit.
    """

    root: int
    kind: Literal["video", "image"]
    table: pa.Table
    rows: Sequence[int]
    weight: float
    empty_caption: tuple[str, int]
    frames_per_unit: int
    measure: Measure

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _sizes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return tuple(self.table.column(name).to_numpy() for name in ("t", "h", "w"))  # type: ignore[return-value]

    def clip(self, i: int) -> Clip:
        """The `i`-th clip."""
        t, h, w = (int(column[i]) for column in self._sizes)
        ids, lengths = (self.table.column(name)[i].as_py() for name in ("caption_ids", "text_lens"))
        latent_id = self.table.column("latent_id")[i].as_py()
        return Clip(latent_id, h, w, 1 + (t - 1) // self.frames_per_unit, tuple(zip(ids, lengths, strict=True)))

    def shapes(self) -> set[tuple[int, int, int]]:
        """The different latent sizes (t, h, w)."""
        return {(int(t), int(h), int(w)) for t, h, w in np.unique(np.stack(self._sizes, axis=1), axis=0)}


@dataclass(frozen=True, eq=False)
class Index:
    """All clips that a phase draws from, by dataset."""

    videos: tuple[ClipTable, ...]
    images: tuple[ClipTable, ...]

    @property
    def clips(self) -> int:
        """How many there are."""
        return sum(map(len, self.videos + self.images))
