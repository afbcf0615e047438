"""What a phase reads of each bucket on average: counted from the index and not from a sample of steps."""

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from rayramid.platform.training.index import ClipTable, Index
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.visits import image_share, target_windows

Kind = Literal["video", "image"]
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """One bucket's part of a phase.

    Attributes:
        kind: videos or images.
        grid: (T, H, W) of its latents.
        clips: how many there are.
        tokens: of a visit, mean over what may be drawn; captions count as long as they are on average.
        flops: of a visit, likewise.
        units: that are targets of a visit, likewise.
        share: of all tokens that the phase reads.
    """

    kind: Kind
    grid: Grid
    clips: int
    tokens: float
    flops: float
    units: float
    share: float


@dataclass(frozen=True)
class Census:
    """A phase by buckets.

    Attributes:
        parts: of every bucket, the smallest sides first.
        epoch_tokens: that one pass over the videos reads, with the images that come along (over the images, without
            videos).
    """

    parts: tuple[Part, ...]
    epoch_tokens: float

    @property
    def flops_per_token(self) -> float:
        """Mean over all tokens."""
        return sum(part.share * part.flops / part.tokens for part in self.parts)

    @property
    def units_per_token(self) -> float:
        """Target units, mean over all tokens."""
        return sum(part.share * part.units / part.tokens for part in self.parts)


def take_census(index: Index, phase: Phase) -> Census:
    """Counts what `phase` reads of `index`; UserError as `image_share`."""
    images = image_share(index, phase)
    share_of: dict[Kind, float] = {"video": 1 - images, "image": images}
    visits: dict[tuple[Kind, Grid], float] = defaultdict(float)
    clips: dict[tuple[Kind, Grid], float] = defaultdict(float)
    sums: dict[tuple[Kind, Grid], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for table in index.videos + index.images:
        for grid, count in table.shapes().items():
            key = (table.kind, grid)
            clips[key] += count * table.scale
            visits[key] += count * table.scale * table.weight
            for number, mean in enumerate(_visit(table, grid, phase)):
                sums[key][number] += count * table.scale * table.weight * mean
    tokens = {kind: sum(total[0] for (k, _), total in sums.items() if k == kind) for kind in share_of}
    parts = [
        Part(
            kind=kind,
            grid=grid,
            clips=round(clips[kind, grid]),
            tokens=totals[0] / visits[kind, grid],
            flops=totals[1] / visits[kind, grid],
            units=totals[2] / visits[kind, grid],
            share=share_of[kind] * totals[0] / tokens[kind],
        )
        for (kind, grid), totals in sums.items()
    ]
    leading: Kind = "video" if index.videos else "image"
    parts.sort(key=lambda part: (part.grid[1] * part.grid[2], part.grid))
    return Census(tuple(parts), tokens[leading] / share_of[leading])


def _visit(table: ClipTable, grid: Grid, phase: Phase) -> tuple[float, float, float]:
    """Mean tokens, operations and target units of a visit of a clip of this size."""
    kept = (1 - phase.text_dropout) * table.mean_text + phase.text_dropout * table.empty_caption[1]
    windows = target_windows(table.units(grid[0]), phase)
    sizes = [table.measure(*grid, round(kept), *window) for window in windows]
    return (
        fmean(size.tokens for size in sizes),
        fmean(size.flops for size in sizes),
        fmean(units for _, units in windows),
    )
