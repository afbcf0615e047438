"""The loss on held-out clips with noise that never changes, so that runs and steps compare."""

from collections.abc import Sequence

from rayramid.platform.training.index import ClipTable, Index
from rayramid.platform.training.plan import Bin, Item, first_fit_decreasing
from rayramid.platform.training.spec import Phase

# Noise and times of validation belong to the clip alone: not to the run's seed, the packing or the ranks.
SEED = 0


def held_out(index: Index, phase: Phase, clips: int) -> list[Bin]:
    """The first `clips` clips by id, with their first captions, packed; as many units as fit into a bin are targets."""
    ranked = sorted(
        (table.clip(i).id, number, i) for number, table in enumerate(_tables(index)) for i in range(len(table))
    )
    items = [_item(_tables(index)[number], i, phase) for _, number, i in ranked[:clips]]
    packed = first_fit_decreasing([item.size.tokens for item in items], phase.tokens_per_bin)
    return [Bin(tuple(items[i] for i in members)) for members in packed]


def _tables(index: Index) -> Sequence[ClipTable]:
    return index.videos + index.images


def _item(table: ClipTable, i: int, phase: Phase) -> Item:
    clip = table.clip(i)
    caption, length = clip.captions[0]
    for units in range(clip.units, 0, -1):
        size = table.measure(clip.latents, clip.height, clip.width, length, 0, units)
        if size.tokens <= phase.tokens_per_bin:
            break
    return Item(table.root, table.rows[i], clip.id, caption, 0, units, visit=0, size=size)
