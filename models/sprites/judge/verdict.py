"""The judge: does a video show what its caption demands, sharply, from the first frame to the last?"""

from dataclasses import dataclass, fields

from rayramid.models.sprites.captions import Demand
from rayramid.models.sprites.draw import PASSING_FRAMES, scale_of
from rayramid.models.sprites.judge.reading import Reading, read
from rayramid.models.sprites.render import Frames

# What a codec of some 30 dB leaves is well below; what people call blurred or noisy is above.
MOST_ERROR = 0.15
MOST_SOFTNESS = 4.5
MOST_NOISE = 14.0
LEAST_GROUND = 0.35
MOST_SURPLUS = 30.0
MOST_STRAY = 3.0
"""Pixels of a 128-pixel side."""
IN_FRONT = 0.9
LEAST_OVERLAP = 0.3


@dataclass(frozen=True)
class Verdict:
    """What is right about a video.

    Attributes:
        background: its colour is the caption's in every frame, smooth and clean.
        colours: the sprites' colours are the caption's, none more and none less.
        shapes: each sprite of the caption has its shape, in every frame.
        motions: each sprite of the caption does what it says, at the pace it says.
        passing: what should pass behind or in front of another does.
        sharp: every sprite looks drawn in every frame.
        persistent: no sprite is ever missing, and nothing else shows up.
        lawful: paths, sizes and turns follow the world's laws, and who is in front stays in front.
    """

    background: bool
    colours: bool
    shapes: bool
    motions: bool
    passing: bool
    sharp: bool
    persistent: bool
    lawful: bool

    @property
    def fully_right(self) -> bool:
        """Everything is."""
        return all(getattr(self, field.name) for field in fields(self))


PARTS = tuple(field.name for field in fields(Verdict))


def judge(frames_THW3: Frames, demand: Demand) -> Verdict:
    """Judges a video [T, H, W, 3], or an image as a video of one frame."""
    frames, height, width = frames_THW3.shape[:3]
    return _verdict(read(frames_THW3), demand, frames, scale_of(width, height))


def _verdict(seen: Reading, demand: Demand, frames: int, scale: float) -> Verdict:
    ground, sightings = seen.ground, seen.sightings
    named = [(actor, sightings[actor.colour]) for actor in demand.actors if actor.colour in sightings]
    moving = demand.actors[0].motion is not None and frames > 1
    return Verdict(
        background=set(ground.names) == {demand.background}
        and bool((ground.share_T >= LEAST_GROUND).all() and (ground.noise_T <= MOST_NOISE).all()),
        colours={actor.colour for actor in demand.actors} == set(sightings),
        shapes=len(named) == len(demand.actors)
        and all(actor.shape == sighting.shape and sighting.same_shape_T.all() for actor, sighting in named),
        motions=len(named) == len(demand.actors)
        and all(not moving or actor.motion == sighting.law.motion for actor, sighting in named),
        passing=demand.passing is None or frames < PASSING_FRAMES or _passes(seen, demand),
        sharp=all(
            sighting.error_T.max() <= MOST_ERROR and sighting.softness_T.max() <= MOST_SOFTNESS
            for sighting in sightings.values()
        ),
        persistent=not any(sighting.missing_T.any() for sighting in sightings.values())
        and bool(seen.surplus_T.max() <= MOST_SURPLUS),
        lawful=all(sighting.law.stray <= MOST_STRAY * scale for sighting in sightings.values())
        and all(max(met.in_front.values()) >= IN_FRONT * met.frames for met in seen.meetings.values()),
    )


def _passes(seen: Reading, demand: Demand) -> bool:
    mover, other = (actor.colour for actor in demand.actors[:2])
    met = seen.meetings.get(frozenset([mover, other]))
    if met is None or met.overlap < LEAST_OVERLAP:
        return False
    return met.in_front[other if demand.passing == "behind" else mover] >= IN_FRONT * met.frames
