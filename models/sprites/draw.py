"""Seeded scenes: clip `index` of the world `seed` is the same in any order, on any machine."""

from collections.abc import Iterator, Sequence

import numpy as np

from rayramid.models.errors import UserError
from rayramid.models.sprites.captions import REST, Actor, Demand, Passing, held_out, possible, write
from rayramid.models.sprites.scene import SWELLING, Scene, Sprite, Track, track
from rayramid.models.sprites.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIDE

MIN_SIDE = 32
MAX_SPEED = 1.5
"""Pixels that anything moves in a frame."""
EDGE = 2.0
"""Pixels from inside to outside of a soft edge."""

# Pixels of a 128-pixel side, as the vocabulary's.
SIZES = {"rests": (12.0, 16.0), "moves": (12.0, 16.0), "spins": (12.0, 16.0), "swells": (9.5, 11.0)}
PASSING_SIZES = (10.5, 12.5)
COUNTS = (0.5, 0.35, 0.15)
"""The shares of scenes with one, two and three sprites."""
PASSING_FRAMES = 25
"""Frames in which one sprite has come behind another; shorter clips show nothing of the kind."""
PASSING_SHARE = 0.3
STRAIGHT_FRAMES = 12
"""What moves keeps its direction so long before it first turns back."""
TRIES = 30


def draw_scene(
    seed: int, index: int, width: int, height: int, frames: int, *, kept_from_training: bool = False
) -> Scene:
    """Clip `index` of the world `seed`, so that sprites meet in none of `frames` frames but where one passes another.

    Args:
        seed: of the world.
        index: of the clip.
        width: in pixels, as `height`.
        height: in pixels.
        frames: 1 is an image.
        kept_from_training: draw from the captions that are held out, which are never drawn otherwise.
    """
    if min(width, height) < MIN_SIDE or frames < 1:
        raise UserError(f"sprites of {width}x{height}, {frames} frames: the least is {MIN_SIDE}x{MIN_SIDE}, 1 frame")
    if kept_from_training and frames == 1:
        raise UserError("captions are held out by their motions; an image has none")
    draw = np.random.default_rng([seed, index])
    while True:
        demand = _demand(draw, frames)
        if possible(demand) and held_out(demand) == kept_from_training:
            scene = stage(draw, demand, width, height, frames)
            if scene is not None:
                return scene


def held_out_scenes(seed: int, width: int, height: int, frames: int) -> Iterator[Scene]:
    """Scenes whose captions training never sees, each with another caption, without end."""
    seen: set[str] = set()
    index = 0
    while True:
        scene = draw_scene(seed, index, width, height, frames, kept_from_training=True)
        if (caption := write(scene.demand)) not in seen:
            seen.add(caption)
            yield scene
        index += 1


def stage(draw: np.random.Generator, demand: Demand, width: int, height: int, frames: int) -> Scene | None:
    """A scene with these sprites, None if no place was found for them."""
    angle = draw.uniform(0, 2 * np.pi)
    shade = (float(np.cos(angle)), float(np.sin(angle)))
    for _ in range(TRIES):
        sprites = [_sprite(draw, actor, width, height, frames) for actor in demand.actors]
        if demand.passing:
            sprites[:2] = _passing(draw, demand.actors, width, height)
        tracks = [track(sprite, width, height, frames) for sprite in sprites]
        apart = all(
            _apart(tracks[one], tracks[other])
            for other in range(len(sprites))
            for one in range(other)
            if not (demand.passing and other == 1)
        )
        if apart and all(_inside(sprite, width, height) for sprite in sprites):
            return Scene(width, height, demand.background, shade, tuple(sprites), demand.passing)
    return None


def scale_of(width: int, height: int) -> float:
    """The factor of the world's lengths in a frame of this size."""
    return min(width, height) / SIDE


def _demand(draw: np.random.Generator, frames: int) -> Demand:
    count = 1 + int(draw.choice(len(COUNTS), p=COUNTS))
    motions = list(MOTIONS)
    passing: Passing | None = None
    if count > 1 and frames >= PASSING_FRAMES and draw.random() < PASSING_SHARE:
        passing = "behind" if draw.random() < 0.5 else "in front of"
    actors = [
        Actor(
            str(colour),
            list(SHAPES)[draw.integers(len(SHAPES))],
            motions[draw.integers(len(motions))] if frames > 1 else None,
        )
        for colour in draw.permutation(list(COLOURS))[:count]
    ]
    if passing:
        quick = [motion for motion in motions if motion.startswith("moves quickly")]
        actors[0] = Actor(actors[0].colour, actors[0].shape, quick[draw.integers(len(quick))])
        actors[1] = Actor(actors[1].colour, actors[1].shape, REST)
    return Demand(tuple(actors), list(BACKGROUNDS)[draw.integers(len(BACKGROUNDS))], passing)


def _sprite(draw: np.random.Generator, actor: Actor, width: int, height: int, frames: int) -> Sprite:
    scale = scale_of(width, height)
    motion = MOTIONS[actor.motion or REST]
    radius = scale * SHAPES[actor.shape] * draw.uniform(*SIZES[motion.kind])
    rate = draw.uniform(*motion.rate)
    widest = radius
    if motion.kind == "moves":
        rate *= min(1.0, scale)
    elif motion.kind == "spins":
        rate = min(rate, MAX_SPEED / radius)
    elif motion.kind == "swells":
        rate = min(rate * radius, MAX_SPEED)
        widest = SWELLING * radius
        radius = radius if motion.sign > 0 else widest
    low = np.full(2, widest)
    high = np.array([width, height]) - 1 - widest
    straight = rate * min(frames - 1, STRAIGHT_FRAMES) * np.array(motion.direction)
    low, high = low - np.minimum(straight, 0), high - np.maximum(straight, 0)
    # Where a frame is too small for that, it starts in the middle.
    x, y = draw.uniform(np.minimum(low, (low + high) / 2), np.maximum(high, (low + high) / 2))
    return Sprite(actor, float(x), float(y), float(radius), float(rate))


def _passing(draw: np.random.Generator, actors: Sequence[Actor], width: int, height: int) -> list[Sprite]:
    """The first two sprites so that the first comes to within half a radius of the other's middle in time."""
    scale = scale_of(width, height)
    mover, other = (scale * SHAPES[actor.shape] * draw.uniform(*PASSING_SIZES) for actor in actors[:2])
    motion = MOTIONS[actors[0].motion or REST]
    rate = draw.uniform(*motion.rate) * min(1.0, scale)
    reach = rate * (PASSING_FRAMES - 1) + other / 2
    ahead = draw.uniform(min(mover + other + EDGE, reach), reach)
    aside = draw.uniform(-0.3, 0.3) * other
    direction = np.array(motion.direction)
    way = ahead * direction + aside * direction[::-1]
    low, high = np.array([mover, mover]), np.array([width, height]) - 1 - mover
    low = np.maximum(low, other - way)
    high = np.minimum(high, np.array([width, height]) - 1 - other - way)
    x, y = draw.uniform(np.minimum(low, high), np.maximum(low, high))
    return [
        Sprite(actors[0], float(x), float(y), float(mover), float(rate)),
        Sprite(actors[1], float(x + way[0]), float(y + way[1]), float(other)),
    ]


def _apart(one: Track, other: Track) -> bool:
    between_T = np.hypot(one.x_T - other.x_T, one.y_T - other.y_T)
    return bool((between_T > one.radius_T + other.radius_T + EDGE).all())


def _inside(sprite: Sprite, width: int, height: int) -> bool:
    return all(sprite.radius <= at <= side - 1 - sprite.radius for at, side in ((sprite.x, width), (sprite.y, height)))
