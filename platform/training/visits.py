"""In which order a phase visits its clips, and what each visit draws.

Videos come in a new random order every epoch, images follow so that they keep their share of the tokens. The n-th visit
of a dataset's videos, or images, is a function of the seed and n; so a stream goes on from any position.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from rayramid.models.errors import UserError
from rayramid.models.history import unit_span
from rayramid.platform.training.draw import draw, draw_below, draw_share, permutation
from rayramid.platform.training.index import Clip, ClipTable, Index, Size
from rayramid.platform.training.spec.curriculum import Phase

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
        finest: the finest level that is a target.
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
    finest: int = 0

    @property
    def key(self) -> int:
        """What the noise and the times of this visit are keyed by, beside the run's seed."""
        return draw("visit", self.clip, self.visit)


class Address(NamedTuple):
    """The `number`-th visit that a table of videos or of images gets, counted over all its clips."""

    kind: Literal["video", "image"]
    table: int
    number: int


@dataclass(frozen=True)
class Position:
    """How far a stream is.

    Attributes:
        videos: visits drawn of each table of videos.
        images: visits drawn of each table of images.
        video_tokens: of these visits.
        image_tokens: of these visits.
    """

    videos: tuple[int, ...]
    images: tuple[int, ...]
    video_tokens: int = 0
    image_tokens: int = 0


class Stream:
    """The visits of a phase, without end.

    Raises:
        UserError: as `image_share`.
    """

    def __init__(self, index: Index, phase: Phase, seed: int, position: Position | None = None) -> None:
        self._index, self._phase, self._seed = index, phase, seed
        self._share = image_share(index, phase)
        position = position or Position((0,) * len(index.videos), (0,) * len(index.images))
        self._turns = {"video": _Turns(index.videos, position.videos), "image": _Turns(index.images, position.images)}
        self._tokens = {"video": position.video_tokens, "image": position.image_tokens}
        self._orders: dict[tuple[str, int, int], np.ndarray] = {}

    @property
    def position(self) -> Position:
        """Where the stream goes on."""
        videos, images = (tuple(self._turns[kind].drawn) for kind in ("video", "image"))
        return Position(videos, images, self._tokens["video"], self._tokens["image"])

    def draw(self) -> tuple[Address, Item]:
        """The next visit: an image as long as images have less than their share of the tokens so far."""
        due = self._share == 1 or self._tokens["image"] * (1 - self._share) < self._tokens["video"] * self._share
        kind: Literal["video", "image"] = "image" if due else "video"
        table, number = self._turns[kind].next()
        address = Address(kind, table, number)
        item = self.at(address)
        self._tokens[kind] += item.size.tokens
        return address, item

    def at(self, address: Address) -> Item:
        """The visit at an address: each clip once per round, each round in another order."""
        kind, number = address.kind, address.number
        table = (self._index.videos if kind == "video" else self._index.images)[address.table]
        visit, place = divmod(number, len(table))
        i = int(self._order(kind, address.table, visit)[place])
        clip, seed = table.clip(i), self._seed
        if draw_share("text dropout", seed, clip.id, visit) < self._phase.text_dropout:
            caption = table.empty_caption
        else:
            caption = clip.captions[draw_below(len(clip.captions), "caption", seed, clip.id, visit)]
        windows = target_windows(clip.units, self._phase)
        window = windows[draw_below(len(windows), "units", seed, clip.id, visit)]
        return item_of(table, i, clip, caption, window, visit, self._phase.finest_level)

    def _order(self, kind: Literal["video", "image"], number: int, visit: int) -> np.ndarray:
        """The order of a table's rows in one round; the newest two are kept, since what waits is of the one before."""
        key = (kind, number, visit)
        if key not in self._orders:
            table = (self._index.videos if kind == "video" else self._index.images)[number]
            self._orders = {k: order for k, order in self._orders.items() if k[:2] != key[:2] or k[2] >= visit - 1}
            self._orders[key] = permutation(len(table), "order", self._seed, table.root, kind, visit)
        return self._orders[key]


class _Turns:
    """Whose turn it is among several tables, mixed evenly at the rates of their visits per epoch."""

    def __init__(self, tables: Sequence[ClipTable], drawn: Sequence[int]) -> None:
        self.drawn = list(drawn)
        self._rates = [table.visits for table in tables]
        self._moments = [(self._moment(i), i) for i in range(len(tables))]
        heapq.heapify(self._moments)

    def next(self) -> tuple[int, int]:
        """The table, and the number of its visit."""
        _, table = self._moments[0]
        number = self.drawn[table]
        self.drawn[table] += 1
        heapq.heapreplace(self._moments, (self._moment(table), table))
        return table, number

    def _moment(self, table: int) -> float:
        """Of the next visit, in epochs."""
        return (self.drawn[table] + 0.5) / self._rates[table]


def item_of(
    table: ClipTable,
    i: int,
    clip: Clip,
    caption: tuple[str, int],
    window: tuple[int, int],
    visit: int,
    finest: int = 0,
) -> Item:
    """A visit of the `i`-th clip of `table` with a caption, of so many tokens, and the targets of `window`.

    `table` measures visits whose finest target is of level `finest`.
    """
    (name, text), (first, units) = caption, window
    grid = (unit_span(first + units - 1, table.frames_per_unit, clip.latents)[1], clip.height, clip.width)
    size = table.measure(*grid, text, first, units)
    return Item(table.root, table.rows[i], clip.id, name, first, units, visit, size, grid, text, finest)


def target_windows(units: int, phase: Phase) -> list[tuple[int, int]]:
    """The windows of targets that a visit of a clip of so many units may draw: first unit and number of units.

    Windows hang over both ends of what the phase trains of the clip, so that every unit is a target equally often.
    """
    units, per_clip = min(units, phase.first_units or units), phase.units_per_clip
    if per_clip >= units:
        return [(0, units)]
    starts = range(1 - per_clip, units)
    return [(max(start, 0), min(start + per_clip, units) - max(start, 0)) for start in starts]


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
