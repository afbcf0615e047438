"""The temporal pyramid (§3.3, Eq. 16): which unit is seen at which level, and the one visibility rule for all.

Masks, caches, token counts and FLOPs all ask `sees`. `levels` is K; level 0 is full resolution, K-1 the coarsest.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["text", "context", "target"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens of one kind with one position grid and one timestep.

    `clip` numbers the rows of a pack that never see each other. `unit` is the unit's index in its video (for text: the
    first unit the prompt serves), `start` the index of its first latent, `prompt` which of the clip's prompts it sees
    (for text: is). `grid` counts tokens (t, h, w); text has (L, 1, 1). `timestep` is 0 (clean) to 1000 (noise).
    `stride`: a token covers `stride` x `stride` cells of the grid in which positions are counted.
    """

    clip: int
    kind: Kind
    unit: int
    level: int
    grid: tuple[int, int, int]
    timestep: float = 0.0
    start: int = 0
    prompt: int = 0
    stride: int = 1

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.grid[0] * self.grid[1] * self.grid[2]


def seen_level(unit: int, level: int, past_unit: int, levels: int, *, target: bool) -> int:
    """The level at which (`unit`, `level`) sees `past_unit`: one coarser per unit back, as in Eq. 16.

    A target sees the newest unit at its own level; a context copy is one coarser from the first unit back. So the chain
    behind C(n-1, k) is the chain that X(n, k) sees, and one copy serves every target.
    """
    back = unit - past_unit
    return min(level + back - int(target), levels - 1)


def sees(query: Segment, key: Segment, levels: int, history_units: int | None = None) -> bool:
    """The visibility rule of `shared_context`: text sees its text; video sees its text, itself and its history chain.

    `history_units` bounds how many units back anything sees.
    """
    if query.clip != key.clip:
        return False
    if key.kind == "text":
        return key.prompt == query.prompt
    if query.kind == "text":
        return False
    if key.unit == query.unit:
        return key.kind == query.kind and key.level == query.level
    back = query.unit - key.unit
    if key.kind == "target" or back < 0 or (history_units is not None and back > history_units):
        return False
    return key.level == seen_level(query.unit, query.level, key.unit, levels, target=query.kind == "target")


def sees_official(query: Segment, key: Segment, *, causal: bool = True, own_text: bool = False) -> bool:
    """The published rule, a segment being one latent frame: text and the first frame see each other, frames look back.

    Without `causal` everything of a clip sees everything (the bidirectional baseline). With `own_text`, text sees text
    alone, as in shared context.
    """
    if query.clip != key.clip:
        return False
    if own_text and query.kind == "text":
        return key.kind == "text"
    return not causal or key.start <= query.start


def context_of(
    unit: int, level: int, levels: int, *, target: bool, history_units: int | None = None
) -> list[tuple[int, int]]:
    """The (unit, level) pairs that a target or a context copy sees besides text and itself, oldest first."""
    oldest = 0 if history_units is None else max(0, unit - history_units)
    return [(past, seen_level(unit, level, past, levels, target=target)) for past in range(oldest, unit)]


def needed_copies(first_unit: int, units: int, levels: int, finest: int = 0) -> list[tuple[int, int]]:
    """Every context copy (unit, level) that `units` units from `first_unit` on need, directly or not.

    Their targets are the stages down to level `finest`. What a copy sees is needed too, so `history_units` does not
    shorten the list: it reaches back to unit 0.
    """
    copies = []
    for unit in range(first_unit + units - 1):
        next_target = max(first_unit, unit + 1)
        first_level = min(finest + next_target - 1 - unit, levels - 1)
        copies += [(unit, level) for level in range(first_level, levels)]
    return copies


def last_use(unit: int, level: int, levels: int, history_units: int | None = None) -> int | None:
    """The last unit during whose making the copy C(unit, level) is seen; None if it stays for ever.

    The copies of unit n are computed while unit n+1 is made, hence the one beyond `history_units`.
    """
    by_level = unit + level + 1 if level < levels - 1 else None
    by_history = None if history_units is None else unit + history_units + 1
    return min((bound for bound in (by_level, by_history) if bound is not None), default=None)


def unit_span(unit: int, frames_per_unit: int | None, latents: int) -> tuple[int, int]:
    """First latent of a unit and the first behind it: unit 0 is one latent, each later one `frames_per_unit`.

    None (full-sequence diffusion) makes all `latents` of the video unit 0.
    """
    if frames_per_unit is None:
        return 0, latents
    if unit == 0:
        return 0, 1
    return 1 + (unit - 1) * frames_per_unit, 1 + unit * frames_per_unit


def unit_count(latents: int, frames_per_unit: int | None) -> int:
    """Units in a video of `latents` latents; None (full-sequence diffusion) makes the whole video one unit.

    Raises ValueError unless `latents` is 1 + a multiple of `frames_per_unit`.
    """
    if latents < 1:
        raise ValueError(f"{latents} latents: a video has at least one")
    if frames_per_unit is None:
        return 1
    if (latents - 1) % frames_per_unit:
        raise ValueError(f"{latents} latents: must be 1 + a multiple of {frames_per_unit} (frames_per_unit)")
    return 1 + (latents - 1) // frames_per_unit


class Span(NamedTuple):
    """A piece of a training sequence before it has content: latents `start` to `stop` of the video, at a level."""

    kind: Literal["context", "target"]
    unit: int
    level: int
    start: int
    stop: int


def training_rows(
    latents: int,
    first_unit: int,
    units: int,
    levels: int,
    frames_per_unit: int | None,
    *,
    shared: bool,
    history_units: int | None = None,
    finest: int = 0,
) -> list[list[Span]]:
    """What must be in sequence to train units `first_unit` to `first_unit + units - 1` of one video.

    All stages are targets, or those down to level `finest`.
    `shared`: one row, each context copy once. Otherwise (official) one row per target, with its own history.
    Raises ValueError when the window does not lie in the video.
    """
    count = unit_count(latents, frames_per_unit)
    if units < 1 or first_unit < 0 or first_unit + units > count:
        raise ValueError(f"units {first_unit} to {first_unit + units - 1}: the video has units 0 to {count - 1}")

    def span(kind: Literal["context", "target"], unit: int, level: int) -> Span:
        return Span(kind, unit, level, *unit_span(unit, frames_per_unit, latents))

    targets = [
        (unit, level) for unit in range(first_unit, first_unit + units) for level in reversed(range(finest, levels))
    ]
    if shared:
        copies = needed_copies(first_unit, units, levels, finest)
        return [[span("context", *copy) for copy in copies] + [span("target", *target) for target in targets]]
    rows = []
    for unit, level in targets:
        history = context_of(unit, level, levels, target=True, history_units=history_units)
        rows.append([span("context", *copy) for copy in history] + [span("target", unit, level)])
    return rows
