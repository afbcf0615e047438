"""Small pictures for reports and pages: still, moving, and as one sheet."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 75


def webp_thumbnail(frame_HWC: NDArray[np.uint8], width: int = 320) -> bytes:
    """One frame as WebP, at most `width` pixels wide."""
    return _encoded([_small(frame_HWC, width)])


def webp_animation(frames_THWC: NDArray[np.uint8], fps: float, width: int = 320) -> bytes:
    """Frames as a WebP that plays for ever at `fps`."""
    return _encoded([_small(frame, width) for frame in frames_THWC], round(1000 / fps))


def sprite_sheet(frames_THWC: NDArray[np.uint8], columns: int, width: int = 160) -> bytes:
    """Frames side by side, row after row, each `width` pixels wide; free places are black. WebP."""
    tiles = [_small(frame, width) for frame in frames_THWC]
    tile_width, tile_height = tiles[0].size
    sheet = Image.new("RGB", (columns * tile_width, -(-len(tiles) // columns) * tile_height))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * tile_width, index // columns * tile_height))
    return _encoded([sheet])


def _small(frame_HWC: NDArray[np.uint8], width: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(frame_HWC))
    if image.width <= width:
        return image
    return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.BICUBIC)


def _encoded(images: list[Image.Image], duration_ms: int = 0) -> bytes:
    file = io.BytesIO()
    moving = {"save_all": True, "append_images": images[1:], "duration": duration_ms, "loop": 0}
    images[0].save(file, "WEBP", quality=QUALITY, **(moving if len(images) > 1 else {}))
    return file.getvalue()
