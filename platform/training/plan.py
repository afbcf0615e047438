"""What every step of a phase reads: a pure function of the index, the phase, the seed and the step.

First-fit decreasing says how many whole steps of bins a window of the stream of visits fills, and with what; that goes,
largest first, each into the cheapest bin that has room; bins are sorted by cost, and each run of neighbours becomes a
step. So the bins of a step cost nearly the same, on however many workers they are dealt. What finds no room, or would
not fill a whole step, waits for the next window; so each visit of a clip happens exactly once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import count
from typing import Any

from rayramid.models.errors import UserError
from rayramid.platform.training.draw import draw, permutation
from rayramid.platform.training.index import Index
from rayramid.platform.training.packing import cheapest_with_room, first_fit_decreasing
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.visits import Address, Item, Position, Stream, target_windows

# Long enough for bins of equal cost to meet, short enough to plan in a moment; but no window is longer than an epoch.
WINDOW_STEPS = 16


@dataclass(frozen=True)
class Bin:
    """Items that are packed into one sequence."""

    items: tuple[Item, ...]

    @cached_property
    def tokens(self) -> int:
        """Length of the packed sequence."""
        return sum(item.size.tokens for item in self.items)

    @cached_property
    def flops(self) -> float:
        """Floating-point operations, forward and backward."""
        return sum(item.size.flops for item in self.items)

    @cached_property
    def units(self) -> int:
        """Units that are targets; each counts once per level in the loss."""
        return sum(item.units for item in self.items)


@dataclass(frozen=True)
class Bookmark:
    """Where a window of a phase's plan begins: planning goes on from here as from the start.

    Attributes:
        phase: name of the phase.
        window: its number.
        step: the phase's step that it begins with.
        position: of the stream of visits.
        waiting: visits that the windows before have left.
    """

    phase: str
    window: int
    step: int
    position: Position
    waiting: tuple[Address, ...]

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Bookmark":
        """What `to_json` gave, after it has been JSON."""
        place = fields["position"]
        position = Position(**place | {kind: tuple(place[kind]) for kind in ("videos", "images")})
        waiting = tuple(Address(*address) for address in fields["waiting"])
        return cls(fields["phase"], fields["window"], fields["step"], position, waiting)


def phase_seed(seed: int, phase: Phase) -> int:
    """The seed of a phase: phases that read the same clips see them in other orders and with other noise."""
    return draw("phase", seed, phase.name)


def plan(index: Index, phase: Phase, seed: int, step: int) -> list[Bin]:
    """The bins of one step over all workers; the same as the `step`-th of `steps`."""
    return next(steps(index, phase, seed, first=step))


def steps(index: Index, phase: Phase, seed: int, first: int = 0) -> Iterator[list[Bin]]:
    """The bins of every step from `first` on, without end; errors as `marked_steps`."""
    return (bins for bins, _ in marked_steps(index, phase, seed, first))


def marked_steps(
    index: Index, phase: Phase, seed: int, first: int = 0, bookmark: Bookmark | None = None
) -> Iterator[tuple[list[Bin], Bookmark]]:
    """The bins of every step from `first` on, each with the bookmark of its window, without end.

    A bookmark of this plan at or before `first` saves the planning of all steps before it.

    Raises:
        UserError: a clip that does not fit into a bin, with the number of tokens that would do.
    """
    check_budget(index, phase)
    known = bookmark if bookmark is not None and bookmark.phase == phase.name and bookmark.step <= first else None
    stream = Stream(index, phase, phase_seed(seed, phase), known.position if known else None)
    visits = [(address, stream.at(address)) for address in known.waiting] if known else []
    step_tokens = phase.bins_per_step * phase.tokens_per_bin
    epoch = sum(map(len, index.videos or index.images))
    done = known.step if known else 0
    for window in count(known.window if known else 0):
        here = Bookmark(phase.name, window, done, stream.position, tuple(address for address, _ in visits))
        tokens = sum(item.size.tokens for _, item in visits)
        drawn = 0
        while tokens < step_tokens or (tokens < WINDOW_STEPS * step_tokens and drawn < epoch):
            visits.append(stream.draw())
            tokens += visits[-1][1].size.tokens
            drawn += 1
        groups, waiting = _pack_window([item for _, item in visits], phase)
        visits = [visits[i] for i in waiting]
        order = permutation(len(groups), "steps", seed, phase.name, window)
        for i in order[max(first - done, 0) :]:
            yield groups[i], here
        done += len(groups)


def check_budget(index: Index, phase: Phase) -> None:
    """Refuses a phase whose largest item is larger than a bin, with the number of tokens that it takes.

    Raises:
        UserError: as said.
    """
    largest, shape, table = max(
        (
            (table.measure(t, h, w, table.longest_text, *window).tokens, (h, w, t), table)
            for table in index.videos + index.images
            for t, h, w in table.shapes()
            for window in target_windows(table.units(t), phase)
        ),
        key=lambda found: found[0],
        default=(0, (0, 0, 0), None),
    )
    if table is not None and largest > phase.tokens_per_bin:
        raise UserError(
            f"phase '{phase.name}': a {table.kind} with latents of {'x'.join(map(str, shape))} (HxWxT) takes up to "
            f"{largest} tokens, tokens_per_bin is {phase.tokens_per_bin}; raise it, or lower units_per_clip"
        )


def deal(bins: Sequence[Bin], world: int) -> list[list[Bin]]:
    """The bins of every rank: from round to round the costliest bin goes to the rank with the least to do.

    Ranks differ by one bin at most; nothing but the order and the ranks depends on `world`.
    """
    order = sorted(range(len(bins)), key=lambda i: (-bins[i].flops, i))
    dealt: list[list[Bin]] = [[] for _ in range(world)]
    load = [0.0] * world
    for start in range(0, len(order), world):
        free = sorted(range(world), key=lambda rank: (load[rank], rank))
        for rank, i in zip(free, order[start : start + world], strict=False):
            dealt[rank].append(bins[i])
            load[rank] += bins[i].flops
    return dealt


def _pack_window(items: Sequence[Item], phase: Phase) -> tuple[list[list[Bin]], list[int]]:
    """Whole steps of bins of like cost, and the indices of the items that wait."""
    budget, sizes = phase.tokens_per_bin, [item.size.tokens for item in items]
    first_fit = first_fit_decreasing(sizes, budget)
    fullest_first = sorted(first_fit, key=lambda members: -sum(sizes[i] for i in members))
    whole = len(first_fit) // phase.bins_per_step * phase.bins_per_step
    packed = sorted(i for members in fullest_first[:whole] for i in members)
    flops = [items[i].size.flops for i in packed]
    bins, homeless = cheapest_with_room([sizes[i] for i in packed], flops, whole, budget)
    alike = sorted((Bin(tuple(items[packed[i]] for i in members)) for members in bins), key=lambda b: b.flops)
    groups = [alike[i : i + phase.bins_per_step] for i in range(0, whole, phase.bins_per_step)]
    return groups, [packed[i] for i in homeless] + [i for members in fullest_first[whole:] for i in members]
