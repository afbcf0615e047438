"""The loss on held-out clips with noise that never changes, so that runs and steps compare.

Which units are targets, and what noise and times they get, depends on the clips alone: a clip that is too long for one
bin comes in several pieces, which draw what it would draw in one.
"""

from collections.abc import Iterator, Sequence

from rayramid.platform.training.index import ClipTable, Index
from rayramid.platform.training.packing import first_fit_decreasing
from rayramid.platform.training.plan import Bin
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.visits import Item, item_of

# Noise and times of validation belong to the clip alone: not to the run's seed, the packing or the ranks.
SEED = 0


def held_out(index: Index, phase: Phase, clips: int) -> list[Bin]:
    """All units of the first `clips` clips by id, with their first captions, packed.

    A unit that is alone too large for a bin has one to itself.
    """
    ranked = sorted(
        (table.clip(i).id, number, i) for number, table in enumerate(_tables(index)) for i in range(len(table))
    )
    items = [item for _, number, i in ranked[:clips] for item in _items(_tables(index)[number], i, phase)]
    packed = first_fit_decreasing([item.size.tokens for item in items], phase.tokens_per_bin)
    return [Bin(tuple(items[i] for i in members)) for members in packed]


def _tables(index: Index) -> Sequence[ClipTable]:
    return index.videos + index.images


def _items(table: ClipTable, i: int, phase: Phase) -> Iterator[Item]:
    """All units of a clip, as many at a time as fit into a bin."""
    clip = table.clip(i)
    caption = clip.captions[0]
    first = 0
    while first < clip.units:
        for units in range(clip.units - first, 0, -1):
            size = table.measure(clip.latents, clip.height, clip.width, caption[1], first, units)
            if size.tokens <= phase.tokens_per_bin:
                break
        yield item_of(table, i, clip, caption, (first, units), visit=0)
        first += units
