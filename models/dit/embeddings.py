"""How latents, positions and timesteps become vectors.

Shape letters: T tokens, D width, H head size, S segments; p patch side.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayramid.models.dit.config import DiTConfig
from rayramid.models.history import Segment

ROPE_THETA = 10000.0
TIME_FREQUENCIES = 128


class TwoLayer(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(inputs, width)
        self.down = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[S, inputs] -> [S, D]."""
        return self.down(F.silu(self.up(x.to(self.up.weight.dtype))))


def timestep_waves(timesteps_S: Tensor) -> Tensor:
    """[S] timesteps on 0..1000 -> [S, 256]: cosines, then sines."""
    numbers = torch.arange(TIME_FREQUENCIES, dtype=timesteps_S.dtype, device=timesteps_S.device)
    angles = timesteps_S[:, None] * torch.exp(-math.log(10000) * numbers / TIME_FREQUENCIES)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def patchify(latent_CTHW: Tensor, patch: int) -> Tensor:
    """[C, T, H, W] -> [T * H/p * W/p, p * p * C], tokens row by row, channels fastest inside a token."""
    blocks = latent_CTHW.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return blocks.permute(1, 2, 4, 3, 5, 0).flatten(3).flatten(0, 2)


def unpatchify(tokens_TD: Tensor, grid: tuple[int, int, int], patch: int) -> Tensor:
    """The inverse of `patchify` for a token grid (t, h, w)."""
    blocks = tokens_TD.unflatten(0, grid).unflatten(3, (patch, patch, -1))
    return blocks.permute(5, 0, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def positions(segments: Sequence[Segment]) -> Tensor:
    """[T, 3] float64: time in latents, row and column of each token's centre in cells of the clip's position grid.

    Text is at the origin.
    """
    seen: dict[tuple[object, ...], Tensor] = {}
    parts = []
    for segment in segments:
        key = (segment.kind == "text", segment.start, segment.grid, segment.stride)
        if key not in seen:
            seen[key] = _positions(segment)
        parts.append(seen[key])
    return torch.cat(parts)


def _positions(segment: Segment) -> Tensor:
    if segment.kind == "text":
        return torch.zeros(segment.length, 3, dtype=torch.float64)
    frames, rows, columns = (torch.arange(side, dtype=torch.float64) for side in segment.grid)
    centres = ((cells + 0.5) * segment.stride - 0.5 for cells in (rows, columns))
    return torch.cartesian_prod(frames + segment.start, *centres)


def rotations(positions_T3: Tensor, axes: Sequence[int], dtype: torch.dtype) -> Tensor:
    """[T, 1, 1, H/2, 2]: cosine and sine of the angle by which each pair of a head's dimensions turns."""
    angles = []
    for axis, size in enumerate(axes):
        rates = ROPE_THETA ** -(
            torch.arange(0, size, 2, dtype=torch.float64, device=positions_T3.device) / max(size, 1)
        )
        angles.append(positions_T3[:, axis, None] * rates)
    angle = torch.cat(angles, dim=-1)
    return torch.stack([angle.cos(), angle.sin()], dim=-1).to(dtype)[:, None, None]


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Turn neighbouring pairs (2i, 2i + 1) of the last dimension of [T, 2, N, H]."""
    pairs = x.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        # Compilers fuse this and have no code for complex numbers, which are the fastest way without one.
        (a, b), (cos, sin) = pairs.unbind(-1), rotations.unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotations)).flatten(-2)


def table_positions(segment: Segment, config: DiTConfig, dtype: torch.dtype) -> Tensor:
    """[T, D] additive positions from the centre of a fixed sine-cosine table, interpolated between its cells.

    The first half of D tells the column, the other the row. Raises ValueError for a grid larger than the table.
    """
    frames, height, width = segment.grid
    columns, rows = (_axis(config, side, segment.stride) for side in (width, height))
    both = torch.cat([columns[None].expand(height, -1, -1), rows[:, None].expand(-1, width, -1)], dim=-1)
    return both.to(dtype).expand(frames, -1, -1, -1).flatten(0, 2)


def _axis(config: DiTConfig, cells: int, stride: int) -> Tensor:
    side = cells * stride
    if side > config.position_table:
        raise ValueError(f"a grid of {side} tokens a side: the position table has {config.position_table}")
    table = axis_table(config)
    place = (torch.arange(cells, dtype=torch.float64) + 0.5) * stride - 0.5 + (config.position_table - side) // 2
    lower = place.floor().long()
    upper = (lower + 1).clamp(max=config.position_table - 1)
    return torch.lerp(table[lower], table[upper], (place - lower)[:, None])


def axis_table(config: DiTConfig) -> Tensor:
    """[M, D/2] float64: sines, then cosines, of one axis of the additive position table."""
    rates = 10000.0 ** -(torch.arange(config.width // 4, dtype=torch.float64) / (config.width // 4))
    # The published table divides in fp32 and goes on in float64.
    place = (torch.arange(config.position_table) / (config.position_table / config.position_base)).double()
    angles = place[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
