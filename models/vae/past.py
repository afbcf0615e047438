"""Where a causal convolution finds the frames that precede its chunk: the previous chunk, or nothing at the start."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

StreamState = tuple[Tensor, ...]
"""The tails of all causal convolutions of an encoder or decoder, in the order in which they run."""


class Past(Protocol):
    """What the layers ask while one chunk goes through them."""

    first: bool
    """Whether the chunk begins the video: its first frame stands alone, and nothing precedes it."""

    def prepend(self, x_BCTHW: Tensor, pad: int, keep: int) -> Tensor:
        """Put the preceding frames before the chunk.

        Args:
            x_BCTHW: the convolution's input.
            pad: zero frames that precede the first chunk.
            keep: frames of the chunk's end that the next chunk needs.
        """
        ...


class Whole:
    """The past of a whole video: nothing, and no chunk follows."""

    first = True

    def prepend(self, x_BCTHW: Tensor, pad: int, keep: int) -> Tensor:
        """Put zeros before the video."""
        before = x_BCTHW.new_zeros(*x_BCTHW.shape[:2], pad, *x_BCTHW.shape[3:])
        return torch.cat([before, x_BCTHW], dim=2)


class Stream:
    """The past of one chunk in a sequence of chunks; collects the state for the next one."""

    def __init__(self, state: StreamState | None):
        self.first = state is None
        self._before: Iterable[Tensor] = iter(state or ())
        self._tails: list[Tensor] = []

    def prepend(self, x_BCTHW: Tensor, pad: int, keep: int) -> Tensor:
        """Put the kept frames of the previous chunk (zeros at the start) before this one."""
        if self.first:
            before = x_BCTHW.new_zeros(*x_BCTHW.shape[:2], pad, *x_BCTHW.shape[3:])
        else:
            before = next(self._before)  # type: ignore[call-overload]
        joined = torch.cat([before, x_BCTHW], dim=2)
        # A copy: a view would keep the whole chunk alive.
        self._tails.append(joined[:, :, joined.shape[2] - keep :].clone())
        return joined

    def state(self) -> StreamState:
        """What the next chunk needs."""
        return tuple(self._tails)
