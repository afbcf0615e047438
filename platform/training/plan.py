"""What every step of a phase reads: a pure function of the index, the phase, the seed and the step.

Videos come in a new random order every epoch, images follow so that they keep their share of the tokens. First-fit
decreasing says how many whole steps of bins a window of the stream fills, and with what; that goes, largest first, each
into the cheapest bin that has room; bins are sorted by cost, and each run of neighbours becomes a step. So the bins of
a step cost nearly the same, on however many workers they are dealt. What finds no room, or would not fill a whole step,
waits for the next window; so each visit of a clip happens exactly once.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from rayramid.models.errors import UserError
from rayramid.models.history import unit_span
from rayramid.platform.training.draw import draw, draw_below, draw_share, permutation
from rayramid.platform.training.index import Clip, ClipTable, Index, Size
from rayramid.platform.training.packing import cheapest_with_room, first_fit_decreasing
from rayramid.platform.training.spec import Phase

# Long enough for bins of equal cost to meet, short enough to plan in a moment; but no window is longer than an epoch.
WINDOW_STEPS = 16
# The paper's share of image tokens, where the data has images at all.
IMAGE_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class Item:
    """One visit of a clip: which of its units are targets, and with which text.

    Attributes:
        root: which of the phase's datasets.
        row: the row of its index.
        clip: identity of the latent.
        caption: identity of the text, the empty prompt's after text dropout.
        first_unit: the first unit that is a target.
        units: how many consecutive ones are.
        visit: how often the clip was visited before in this phase.
        size: what this visit adds to a pack.
        grid: of the latent, (T, H, W), up to the last target.
        text: tokens of the caption.
    """

    root: int
    row: int
    clip: str
    caption: str
    first_unit: int
    units: int
    visit: int
    size: Size
    grid: tuple[int, int, int]
    text: int

    @property
    def key(self) -> int:
        """What the noise and the times of this visit are keyed by, beside the run's seed."""
        return draw("visit", self.clip, self.visit)


@dataclass(frozen=True, slots=True)
class Bin:
    """Items that are packed into one sequence."""

    items: tuple[Item, ...]

    @property
    def tokens(self) -> int:
        """Length of the packed sequence."""
        return sum(item.size.tokens for item in self.items)

    @property
    def flops(self) -> float:
        """Floating-point operations, forward and backward."""
        return sum(item.size.flops for item in self.items)

    @property
    def units(self) -> int:
        """Units that are targets; each counts once per level in the loss."""
        return sum(item.units for item in self.items)


def phase_seed(seed: int, phase: Phase) -> int:
    """The seed of a phase: phases that read the same clips see them in other orders and with other noise."""
    return draw("phase", seed, phase.name)


def plan(index: Index, phase: Phase, seed: int, step: int) -> list[Bin]:
    """The bins of one step over all workers; the same as the `step`-th of `steps`."""
    return next(steps(index, phase, seed, first=step))


def steps(index: Index, phase: Phase, seed: int, first: int = 0) -> Iterator[list[Bin]]:
    """The bins of every step from `first` on, without end.

    Raises:
        UserError: a clip that does not fit into a bin, with the number of tokens that would do.
    """
    check_budget(index, phase)
    stream = items(index, phase, phase_seed(seed, phase))
    step_tokens = phase.bins_per_step * phase.tokens_per_bin
    epoch = sum(map(len, index.videos or index.images))
    left: list[Item] = []
    done = 0
    for window in count():
        tokens = sum(item.size.tokens for item in left)
        drawn = 0
        while tokens < step_tokens or (tokens < WINDOW_STEPS * step_tokens and drawn < epoch):
            left.append(next(stream))
            tokens += left[-1].size.tokens
            drawn += 1
        groups, left = _pack_window(left, phase)
        order = permutation(len(groups), "steps", seed, phase.name, window)
        yield from [groups[i] for i in order][max(first - done, 0) :]
        done += len(groups)


def items(index: Index, phase: Phase, seed: int) -> Iterator[Item]:
    """Visits without end: videos epoch by epoch, and as many images as keep their share of the tokens."""
    share = image_share(index, phase)
    video_stream, image_stream = _visits(index.videos, phase, seed), _visits(index.images, phase, seed)
    if share == 1:
        yield from image_stream
    video_tokens = image_tokens = 0
    for video in video_stream:
        video_tokens += video.size.tokens
        yield video
        while image_tokens < video_tokens * share / (1 - share):
            image = next(image_stream)
            image_tokens += image.size.tokens
            yield image


def image_share(index: Index, phase: Phase) -> float:
    """The share of tokens that images have in `phase`, after looking at what there is.

    Raises:
        UserError: images are asked for and there are none, or only images and there are videos alone; no clips at all.
    """
    have_images, have_videos = bool(index.images), bool(index.videos)
    if not have_images and not have_videos:
        raise UserError(f"phase '{phase.name}' would read no clips: none in its data fits buckets and latents")
    if phase.image_share is None:
        return 0.0 if not have_images else IMAGE_SHARE if have_videos else 1.0
    for kind, share, have in (
        ("images", phase.image_share, have_images),
        ("videos", 1 - phase.image_share, have_videos),
    ):
        if share > 0 and not have:
            raise UserError(
                f"phase '{phase.name}' asks for {kind} (image_share {phase.image_share}) and its data has none"
            )
    return phase.image_share


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
            for window in target_windows(table.units(t), phase.units_per_clip)
        ),
        key=lambda found: found[0],
        default=(0, (0, 0, 0), None),
    )
    if table is not None and largest > phase.tokens_per_bin:
        raise UserError(
            f"phase '{phase.name}': a {table.kind} with latents of {'x'.join(map(str, shape))} (HxWxT) takes up to "
            f"{largest} tokens, tokens_per_bin is {phase.tokens_per_bin}; raise it, or lower units_per_clip"
        )


def deal(bins: Sequence[Bin], world: int, rank: int) -> list[Bin]:
    """The bins of one rank: from round to round the costliest bin goes to the rank with the least to do.

    Ranks differ by one bin at most; nothing but the order and the ranks depends on `world`.
    """
    order = sorted(range(len(bins)), key=lambda i: (-bins[i].flops, i))
    dealt: list[list[int]] = [[] for _ in range(world)]
    load = [0.0] * world
    for start in range(0, len(order), world):
        free = sorted(range(world), key=lambda r: (load[r], r))
        for receiver, i in zip(free, order[start : start + world], strict=False):
            dealt[receiver].append(i)
            load[receiver] += bins[i].flops
    return [bins[i] for i in dealt[rank]]


def _pack_window(items: Sequence[Item], phase: Phase) -> tuple[list[list[Bin]], list[Item]]:
    """Whole steps of bins of like cost, and the items that wait."""
    budget = phase.tokens_per_bin
    first_fit = first_fit_decreasing([item.size.tokens for item in items], budget)
    fullest_first = sorted(first_fit, key=lambda members: -sum(items[i].size.tokens for i in members))
    whole = len(first_fit) // phase.bins_per_step * phase.bins_per_step
    packed = [items[i] for i in sorted(i for members in fullest_first[:whole] for i in members)]
    tokens, flops = [item.size.tokens for item in packed], [item.size.flops for item in packed]
    bins, homeless = cheapest_with_room(tokens, flops, whole, budget)
    alike = sorted((Bin(tuple(packed[i] for i in members)) for members in bins), key=lambda b: b.flops)
    groups = [alike[i : i + phase.bins_per_step] for i in range(0, whole, phase.bins_per_step)]
    others = [items[i] for members in fullest_first[whole:] for i in members]
    return groups, [packed[i] for i in homeless] + others


def _visits(tables: Sequence[ClipTable], phase: Phase, seed: int) -> Iterator[Item]:
    """Visits of the clips of several datasets, mixed evenly at the rates size x weight."""
    streams = [_cycle(table, phase, seed) for table in tables]
    # The moment of the next visit, in epochs of a dataset of weight 1.
    moments = [(0.5 / table.visits, i) for i, table in enumerate(tables)]
    heapq.heapify(moments)
    while moments:
        moment, i = moments[0]
        heapq.heapreplace(moments, (moment + 1 / tables[i].visits, i))
        yield next(streams[i])


def _cycle(table: ClipTable, phase: Phase, seed: int) -> Iterator[Item]:
    """The clips of one dataset, every one once per round, each round in another order."""
    for visit in count():
        for i in permutation(len(table), "order", seed, table.root, table.kind, visit):
            yield _visit(table, int(i), phase, seed, visit)


def _visit(table: ClipTable, i: int, phase: Phase, seed: int, visit: int) -> Item:
    clip = table.clip(i)
    if draw_share("text dropout", seed, clip.id, visit) < phase.text_dropout:
        caption = table.empty_caption
    else:
        caption = clip.captions[draw_below(len(clip.captions), "caption", seed, clip.id, visit)]
    windows = target_windows(clip.units, phase.units_per_clip)
    window = windows[draw_below(len(windows), "units", seed, clip.id, visit)]
    return item_of(table, i, clip, caption, window, visit)


def item_of(
    table: ClipTable, i: int, clip: Clip, caption: tuple[str, int], window: tuple[int, int], visit: int
) -> Item:
    """A visit of the `i`-th clip of `table` with a caption, of so many tokens, and the targets of `window`."""
    (name, text), (first, units) = caption, window
    grid = (unit_span(first + units - 1, table.frames_per_unit, clip.latents)[1], clip.height, clip.width)
    size = table.measure(*grid, text, first, units)
    return Item(table.root, table.rows[i], clip.id, name, first, units, visit, size, grid, text)


def target_windows(units: int, per_clip: int) -> list[tuple[int, int]]:
    """The windows of targets that a visit may draw: first unit and number of units.

    Windows hang over both ends of the clip, so that every unit is a target equally often.
    """
    if per_clip >= units:
        return [(0, units)]
    starts = range(1 - per_clip, units)
    return [(max(start, 0), min(start + per_clip, units) - max(start, 0)) for start in starts]
