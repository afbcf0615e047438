"""A source of videos whose truth is known: coloured shapes that move by simple laws, with captions that say so.

Everything follows from (seed, index): the same pair gives the same clip, in any order, on any machine.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rayramid.models.errors import UserError
from rayramid.models.media.write import write_mp4
from rayramid.models.stores.local import place

SHAPES = ("circle", "square", "triangle", "diamond")
COLOURS = {
    "red": (222, 45, 38),
    "green": (49, 163, 84),
    "blue": (40, 90, 220),
    "yellow": (250, 220, 50),
    "orange": (253, 141, 60),
    "purple": (128, 60, 180),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
BACKGROUNDS = {
    "blue": (60, 110, 200),
    "green": (90, 160, 100),
    "grey": (128, 128, 128),
    "brown": (130, 90, 60),
    "pink": (225, 165, 185),
    "beige": (215, 200, 165),
}
DIRECTIONS = {"moves right": (1, 0), "moves left": (-1, 0), "moves down": (0, 1), "moves up": (0, -1)}
TURNS = {"circles clockwise": 1, "circles counterclockwise": -1}
MOTIONS = (*DIRECTIONS, *TURNS, "swings from side to side", "stands still")

MAX_SPEED = 1.5  # pixels per frame
EDGE = 2.0  # pixels from inside to outside of a soft edge
MIN_CONTRAST = 130  # distance of two colours in RGB
MIN_SIDE = 32
TRIES = 40


@dataclass(frozen=True, eq=False)
class Sprite:
    """One shape: `positions_T2` are the x and y of its centre in pixels, `radius` that of the circle around it."""

    shape: str
    colour: str
    motion: str
    radius: float
    positions_T2: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    """All that a clip shows; no two sprites touch. `shade` points to where the background is brighter."""

    width: int
    height: int
    background: str
    shade: tuple[float, float]
    sprites: tuple[Sprite, ...]
    caption: str


def truth(seed: int, index: int, width: int, height: int, frames: int) -> Scene:
    """What clip `index` of the world `seed` shows, without drawing it."""
    if min(width, height) < MIN_SIDE or frames < 1:
        raise UserError(f"sprites of {width}x{height}, {frames} frames: the least is {MIN_SIDE}x{MIN_SIDE}, 1 frame")
    draw = np.random.default_rng([seed, index])
    background = str(draw.choice(list(BACKGROUNDS)))
    angle = draw.uniform(0, 2 * np.pi)
    colours = [name for name, colour in COLOURS.items() if _contrast(colour, BACKGROUNDS[background]) >= MIN_CONTRAST]
    sprites: list[Sprite] = []
    for colour in draw.permutation(colours)[: draw.integers(1, 4)]:
        for _ in range(TRIES):
            sprite = _sprite(draw, str(colour), width, height, frames)
            if all(_apart(sprite, other) for other in sprites):
                sprites.append(sprite)
                break
    shade = (float(np.cos(angle)), float(np.sin(angle)))
    return Scene(width, height, background, shade, tuple(sprites), _caption(sprites, background, frames))


def render(seed: int, index: int, width: int, height: int, frames: int) -> tuple[NDArray[np.uint8], str]:
    """Clip `index` of the world `seed`: frames [T, H, W, 3] and a caption that is true."""
    scene = truth(seed, index, width, height, frames)
    return np.stack([draw_frame(scene, number) for number in range(frames)]), scene.caption


def draw_frame(scene: Scene, number: int) -> NDArray[np.uint8]:
    """One frame [H, W, 3] of a scene."""
    y, x = np.mgrid[0 : scene.height, 0 : scene.width].astype(np.float32)
    across = scene.shade[0] * (x / (scene.width - 1) - 0.5) + scene.shade[1] * (y / (scene.height - 1) - 0.5)
    image = np.array(BACKGROUNDS[scene.background], np.float32) * (1 + 0.3 * across[..., None])
    for sprite in scene.sprites:
        centre_x, centre_y = sprite.positions_T2[number]
        outside = _distance(sprite.shape, x - centre_x, y - centre_y, sprite.radius)
        cover = np.clip(0.5 - outside / EDGE, 0, 1)[..., None]
        image = image * (1 - cover) + np.array(COLOURS[sprite.colour], np.float32) * cover
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def write_sprites(
    folder: str | Path,
    clips: int,
    seed: int = 0,
    width: int = 128,
    height: int = 128,
    frames: int = 33,
    fps: float = 24.0,
) -> Path:
    """Writes clips 0 to `clips` - 1 as nearly lossless MP4, and `manifest.jsonl`, whose path is returned.

    A line of the manifest: {"video": name inside the folder, "caption": …, "licence": "CC0-1.0"}.
    """
    root = Path(folder)
    lines = []
    for index in range(clips):
        images, caption = render(seed, index, width, height, frames)
        name = f"sprites-{seed}-{index:06d}.mp4"
        write_mp4(root / name, images, fps, crf=6)
        lines.append(json.dumps({"video": name, "caption": caption, "licence": "CC0-1.0"}) + "\n")
    manifest = root / "manifest.jsonl"
    place(manifest, lambda file: file.write("".join(lines).encode()))
    return manifest


def _sprite(draw: np.random.Generator, colour: str, width: int, height: int, frames: int) -> Sprite:
    radius = min(width, height) * draw.uniform(0.09, 0.16)
    margin = radius + EDGE
    room = np.array([width - 1 - 2 * margin, height - 1 - 2 * margin])
    reach = MAX_SPEED * (frames - 1)  # the longest way in this clip
    # A turn or a swing must be seen as such: half a round, there and some way back.
    turning = [*TURNS, "swings from side to side"] if reach >= 24 else []
    motion = str(draw.choice([*DIRECTIONS, *turning, "stands still"]))
    t = np.arange(frames)
    if motion in DIRECTIONS:
        direction = np.array(DIRECTIONS[motion])
        longest = min(reach, float(np.abs(direction) @ room))
        way = direction * longest * draw.uniform(0.6, 1.0) / max(1, frames - 1)
        offsets = way * (t - (frames - 1) / 2)[:, None]
    elif motion in TURNS:
        orbit = min(reach / np.pi, float(room.min()) / 2) * draw.uniform(0.7, 1.0)
        speed = min(MAX_SPEED / orbit, 2 * np.pi / 24) * draw.uniform(0.9, 1.0)
        phase = draw.uniform(0, 2 * np.pi) + TURNS[motion] * speed * t  # y points down: rising angles turn clockwise
        offsets = orbit * np.stack([np.cos(phase), np.sin(phase)], 1)
    elif motion == "swings from side to side":
        swing = min(reach / (1.5 * np.pi), float(room[0]) / 2) * draw.uniform(0.7, 1.0)
        phase = draw.choice([0, np.pi]) + np.pi / 2 + min(MAX_SPEED / swing, 2 * np.pi / 24) * t
        offsets = np.stack([swing * np.sin(phase), np.zeros(frames)], 1)
    else:
        offsets = np.zeros((frames, 2))
    low = margin - offsets.min(0)
    high = np.array([width, height]) - 1 - margin - offsets.max(0)
    return Sprite(str(draw.choice(SHAPES)), colour, motion, float(radius), draw.uniform(low, high) + offsets)


def _apart(one: Sprite, other: Sprite) -> bool:
    between = np.linalg.norm(one.positions_T2 - other.positions_T2, axis=1)
    return bool(between.min() > one.radius + other.radius + EDGE)


def _distance(shape: str, x: NDArray[np.floating], y: NDArray[np.floating], radius: float) -> NDArray[np.floating]:
    """Pixels outside (negative: inside) a shape whose corners lie on a circle of this radius."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - radius / np.sqrt(2)
    if shape == "diamond":
        return (np.abs(x) + np.abs(y) - radius) / np.sqrt(2)
    # A triangle that points up: below two slanted sides, above the base.
    return np.asarray(np.maximum(np.abs(x) * np.sqrt(3) / 2 - y / 2, y) - radius / 2)


def _contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    return float(np.linalg.norm(np.subtract(one, other)))


def _caption(sprites: list[Sprite], background: str, frames: int) -> str:
    said = []
    for sprite in sprites:
        article = "an" if sprite.colour[0] in "aeiou" else "a"
        motion = f" {sprite.motion}" if frames > 1 else ""
        said.append(f"{article} {sprite.colour} {sprite.shape}{motion}")
    subjects = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f"{subjects} over a {background} background"
