"""Captions of the sprites world: what a caption demands, written out and read back.

A caption names one to three sprites of different colours and the background:
`a red circle moves quickly left behind a blue square, …`; in captions of images nothing moves.
"""

import re
from dataclasses import dataclass
from typing import Literal

from rayramid.models.errors import UserError
from rayramid.models.sprites.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES

Passing = Literal["behind", "in front of"]

MOST_ACTORS = 3
REST = "stands still"


@dataclass(frozen=True)
class Actor:
    """One sprite as a caption names it; `motion` is a key of MOTIONS, None in an image."""

    colour: str
    shape: str
    motion: str | None

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Demand:
    """What a caption asks for. With `passing`, the first actor passes behind or in front of the second, which rests."""

    actors: tuple[Actor, ...]
    background: str
    passing: Passing | None = None


def write(demand: Demand) -> str:
    """The caption of a demand."""
    said = [f"a {actor.name} {actor.motion}" if actor.motion else f"a {actor.name}" for actor in demand.actors]
    if demand.passing:
        said[:2] = [f"{said[0]} {demand.passing} a {demand.actors[1].name}"]
    listed = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f"{listed} on a {demand.background} background"


def parse(caption: str) -> Demand:
    """The demand of a caption; UserError for what `write` would not have written."""
    matched = _CAPTION.fullmatch(caption)
    if matched is None:
        raise UserError(
            f"{caption!r}: not a caption of the sprites world, such as 'a red circle grows on a grey background'"
        )
    actors: list[Actor] = []
    passing: Passing | None = None
    for part in _ACTOR.finditer(matched["actors"]):
        actors.append(Actor(part["colour"], part["shape"], part["motion"]))
        if part["passing"]:
            passing = "behind" if part["passing"] == "behind" else "in front of"
            actors.append(Actor(part["other_colour"], part["other_shape"], REST))
    demand = Demand(tuple(actors), matched["background"], passing)
    if not possible(demand) or write(demand) != caption:
        raise UserError(f"{caption!r}: no scene of the sprites world is like that")
    return demand


def possible(demand: Demand) -> bool:
    """Whether there is such a scene: few sprites of different colours, nothing that can't be seen to happen."""
    actors = demand.actors
    alike = {actor.motion is None for actor in actors}
    return (
        1 <= len(actors) <= MOST_ACTORS
        and len({actor.colour for actor in actors}) == len(actors)
        and len(alike) == 1
        and not any(actor.shape == "circle" and (actor.motion or "").startswith("spins") for actor in actors)
        and (demand.passing is None or _passes(actors))
    )


def held_out(demand: Demand) -> bool:
    """Whether a caption is kept from training: it names a sprite whose colour, shape and motion never occur together.

    One in ten of these threes is held out; every two of the three do occur together in training.
    """
    return any(
        actor.motion is not None
        and (_COLOURS.index(actor.colour) + 2 * _SHAPES.index(actor.shape) + 3 * _MOTIONS.index(actor.motion)) % 10 == 0
        for actor in demand.actors
    )


def _passes(actors: tuple[Actor, ...]) -> bool:
    return len(actors) >= 2 and (actors[0].motion or "").startswith("moves quickly") and actors[1].motion == REST


_COLOURS, _SHAPES, _MOTIONS = list(COLOURS), list(SHAPES), list(MOTIONS)

_SPRITE = rf"(?P<{{0}}colour>{'|'.join(COLOURS)}) (?P<{{0}}shape>{'|'.join(SHAPES)})"
_ACTOR = re.compile(
    rf"a {_SPRITE.format('')}(?: (?P<motion>{'|'.join(MOTIONS)}))?"
    rf"(?: (?P<passing>behind|in front of) a {_SPRITE.format('other_')})?"
)
_CAPTION = re.compile(rf"(?P<actors>a .+) on a (?P<background>{'|'.join(BACKGROUNDS)}) background")
