"""Frames of a scene, a pure function of the scene and the frames' numbers.

Shape letters: T frames, H W pixels, 3 = RGB.
"""

import numpy as np
from numpy.typing import NDArray

from rayramid.models.sprites.draw import EDGE
from rayramid.models.sprites.scene import Scene, track
from rayramid.models.sprites.vocabulary import BACKGROUNDS, COLOURS

Frames = NDArray[np.uint8]

SHADE = 0.24
"""Brightness across the frame, from end to end, as a share of the background's colour."""


def render(scene: Scene, frames: int, start: int = 0) -> Frames:
    """`frames` frames [T, H, W, 3] of a scene from frame `start` on."""
    canvas_THW3 = np.repeat(_to_bytes(background(scene))[None], frames, axis=0)
    for sprite in scene.back_to_front:
        colour = np.array(COLOURS[sprite.actor.colour], np.float32)
        seen = track(sprite, scene.width, scene.height, frames, start)
        states = zip(canvas_THW3, seen.x_T, seen.y_T, seen.radius_T, seen.angle_T, strict=True)
        for canvas_HW3, x, y, radius, angle in states:
            reach = radius + EDGE
            top, left = max(0, int(y - reach)), max(0, int(x - reach))
            part_HW3 = canvas_HW3[top : int(y + reach) + 2, left : int(x + reach) + 2]
            dy = (np.arange(part_HW3.shape[0]) + (top - y))[:, None].astype(np.float32)
            dx = (np.arange(part_HW3.shape[1]) + (left - x)).astype(np.float32)
            cover_HW1 = cover(sprite.actor.shape, dx, dy, radius, angle)[..., None].astype(np.float32)
            part_HW3[:] = _to_bytes(part_HW3 + cover_HW1 * (colour - part_HW3))
    return canvas_THW3


def background(scene: Scene) -> NDArray[np.floating]:
    """The background alone [H, W, 3]: one colour, smoothly shaded."""
    y = np.linspace(-0.5, 0.5, scene.height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, scene.width, dtype=np.float32)
    brightness_HW = 1 + SHADE * (scene.shade[0] * x + scene.shade[1] * y)
    return brightness_HW[..., None] * np.array(BACKGROUNDS[scene.background], np.float32)


def cover(
    shape: str,
    dx: NDArray[np.floating],
    dy: NDArray[np.floating],
    radius: float | NDArray[np.floating],
    angle: float | NDArray[np.floating],
) -> NDArray[np.floating]:
    """How much of each pixel a shape covers, 0..1, given the pixels' offsets from its centre (y down)."""
    return np.clip(0.5 - distance(shape, dx, dy, radius, angle) / EDGE, 0, 1)


def distance(
    shape: str,
    dx: NDArray[np.floating],
    dy: NDArray[np.floating],
    radius: float | NDArray[np.floating],
    angle: float | NDArray[np.floating],
) -> NDArray[np.floating]:
    """Pixels outside (negative: inside) a shape that is turned clockwise by `angle`, its corners at `radius`."""
    if shape == "circle":
        return np.hypot(dx, dy) - radius
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - radius / np.sqrt(2)
    if shape == "cross":
        return np.minimum(_bar(x, y, radius), _bar(y, x, radius))
    # A triangle that points up: below two slanted sides, above the base.
    return np.asarray(np.maximum(np.abs(x) * np.sqrt(3) / 2 - y / 2, y) - radius / 2)


# Half a bar of the cross: how long and how wide it is, for corners at radius 1.
BAR = (np.cos(0.36), np.sin(0.36))


def _bar(
    x: NDArray[np.floating], y: NDArray[np.floating], radius: float | NDArray[np.floating]
) -> NDArray[np.floating]:
    return np.maximum(np.abs(x) - BAR[0] * radius, np.abs(y) - BAR[1] * radius)


def _to_bytes(colours: NDArray[np.floating]) -> Frames:
    # All colours of the world lie well between 0 and 255.
    return (colours + np.float32(0.5)).astype(np.uint8)
