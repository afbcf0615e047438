"""A frame in spatial tiles, for sizes that do not fit at once; each tile streams through time by itself.

`smooth` spreads equal tiles evenly and fades linearly from one to the next over their whole overlap: no other fade of
that width has smaller steps. `published` repeats the published code: a stride of 3/4 tile, fades over 1/4.
Shapes: B batch, C channels, T time, H height, W width. Positions of tiles are counted in latents.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from rayramid.models.errors import UserError
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.past import StreamState

Run = Callable[[Tensor, StreamState | None], tuple[Tensor, StreamState]]


@dataclass(frozen=True)
class Tiling:
    """How frames are cut.

    Args:
        tile: side of a tile in latents (64 latents = 512 pixels); for `published` a multiple of 4.
        overlap: latents that neighbouring tiles share at least; `published` has tile/4 always.
        blend: how overlaps are joined.
    """

    tile: int = 64
    overlap: int = 16
    blend: Literal["smooth", "published"] = "smooth"

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.tile:
            raise UserError(f"tiles of {self.tile} latents can't overlap by {self.overlap}")
        if self.blend == "published" and self.tile % 4:
            raise UserError(f"published tiles have a side that 4 divides, not {self.tile}")


def encode_tiled(
    vae: CausalVAE, frames_B3THW: Tensor, state: StreamState | None, tiling: Tiling
) -> tuple[Tensor, StreamState]:
    """`vae.encode` in tiles: moments [B, 2C, T, H/8, W/8], and the state of all tiles for the next chunk."""
    return _run_tiles(vae.encode, frames_B3THW, state, tiling, vae.config.spatial_ratio, 1)


def decode_tiled(
    vae: CausalVAE, z_BCTHW: Tensor, state: StreamState | None, tiling: Tiling
) -> tuple[Tensor, StreamState]:
    """`vae.decode` in tiles: frames [B, 3, T, 8H, 8W], and the state of all tiles for the next chunk."""
    return _run_tiles(vae.decode, z_BCTHW, state, tiling, 1, vae.config.spatial_ratio)


def spans(side: int, tiling: Tiling) -> list[tuple[int, int]]:
    """(start, stop) of the tiles along one side of `side` latents; neighbours overlap."""
    if tiling.blend == "published":
        return [(start, min(start + tiling.tile, side)) for start in range(0, side, tiling.tile * 3 // 4)]
    if side <= tiling.tile:
        return [(0, side)]
    last = math.ceil((side - tiling.overlap) / (tiling.tile - tiling.overlap)) - 1
    starts = [round(i * (side - tiling.tile) / last) for i in range(last + 1)]
    return [(start, start + tiling.tile) for start in starts]


def _run_tiles(
    run: Run, x_BCTHW: Tensor, state: StreamState | None, tiling: Tiling, scale_in: int, scale_out: int
) -> tuple[Tensor, StreamState]:
    """Cut the input, run every tile with its own part of the state, join the outputs."""
    if any(side % scale_in for side in x_BCTHW.shape[3:]):
        raise ValueError(f"frames are {x_BCTHW.shape[4]}x{x_BCTHW.shape[3]}; the VAE needs multiples of {scale_in}")
    height, width = (side // scale_in for side in x_BCTHW.shape[3:])
    if max(height, width) <= tiling.tile:
        return run(x_BCTHW, state)
    rows, columns = spans(height, tiling), spans(width, tiling)
    tails = len(state) // (len(rows) * len(columns)) if state is not None else 0
    tiles: list[list[Tensor]] = []
    new_state: list[Tensor] = []
    for row, (top, bottom) in enumerate(rows):
        tiles.append([])
        for column, (left, right) in enumerate(columns):
            at = (row * len(columns) + column) * tails
            tile = x_BCTHW[..., top * scale_in : bottom * scale_in, left * scale_in : right * scale_in]
            out, tile_state = run(tile, None if state is None else state[at : at + tails])
            tiles[-1].append(out)
            new_state += tile_state
    if tiling.blend == "published":
        return join_published(tiles, tiling.tile * scale_out), tuple(new_state)
    strips = [join_smooth(strip, columns, scale_out, dim=4) for strip in tiles]
    return join_smooth(strips, rows, scale_out, dim=3), tuple(new_state)


def join_smooth(tiles: list[Tensor], places: list[tuple[int, int]], scale: int, dim: int) -> Tensor:
    """Weighted sum along `dim`. A tile's weight is its rise minus the next one's: together they are 1 everywhere."""
    shape = list(tiles[0].shape)
    shape[dim] = places[-1][1] * scale
    positions = torch.arange(shape[dim], device=tiles[0].device) + 0.5
    # Each tile takes over from the one before around the middle of their overlap.
    overlaps = [(start * scale, stop * scale) for (_, stop), (start, _) in pairwise(places)]
    width = min((stop - start for start, stop in overlaps), default=0)
    rises = [((positions - (start + stop) / 2) / width + 0.5).clamp(0, 1) for start, stop in overlaps]
    edges = [torch.ones_like(positions), *rises, torch.zeros_like(positions)]
    joined = tiles[0].new_zeros(shape)
    for tile, (start, stop), (rise, fall) in zip(tiles, places, pairwise(edges), strict=True):
        weight = (rise - fall)[start * scale : stop * scale].to(tile.dtype)
        place = joined.narrow(dim, start * scale, (stop - start) * scale)
        place += tile * weight.view(-1, *[1] * (4 - dim))
    return joined


def join_published(tiles: list[list[Tensor]], tile: int) -> Tensor:
    """Blend each tile with the (already blended) one above and the one to the left, then keep its first 3/4."""
    kept, strips = tile * 3 // 4, []
    for row, strip in enumerate(tiles):
        for column in range(len(strip)):
            if row > 0:
                strip[column] = _blend(tiles[row - 1][column], strip[column], tile - kept, dim=3)
            if column > 0:
                strip[column] = _blend(strip[column - 1], strip[column], tile - kept, dim=4)
        strips.append(torch.cat([out[..., :kept, :kept] for out in strip], dim=4))
    return torch.cat(strips, dim=3)


def _blend(before: Tensor, after: Tensor, length: int, dim: int) -> Tensor:
    """`after`, whose first `length` positions fade over from the last ones of `before`."""
    length = min(length, before.shape[dim], after.shape[dim])
    weight = (torch.arange(length, device=after.device, dtype=after.dtype) / length).view(-1, *[1] * (4 - dim))
    fade = before.narrow(dim, before.shape[dim] - length, length) * (1 - weight)
    fade = fade + after.narrow(dim, 0, length) * weight
    return torch.cat([fade, after.narrow(dim, length, after.shape[dim] - length)], dim=dim)
