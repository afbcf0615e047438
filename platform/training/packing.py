"""Which items share a bin: as many as fit, and bins that cost alike."""

from collections.abc import Sequence

import numpy as np


def first_fit_decreasing(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `sizes` by bin: each, largest first, goes into the first bin that has room."""
    room = np.zeros(0, dtype=np.int64)
    bins: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        fits = room >= sizes[i]
        place = int(fits.argmax()) if fits.any() else len(bins)
        if place == len(bins):
            bins.append([])
            if place == len(room):
                room = np.concatenate([room, np.zeros(max(64, len(room)), dtype=np.int64)])
            room[place] = budget
        bins[place].append(i)
        room[place] -= sizes[i]
    return bins


def cheapest_with_room(
    sizes: Sequence[int], costs: Sequence[float], bins: int, budget: int
) -> tuple[list[list[int]], list[int]]:
    """Indices of `sizes` by bin: each, largest first, goes into the bin of the least cost so far that has room.

    Where bins hold several items, all cost nearly the same, and are nearly as full as first-fit ones.

    Returns:
        the bins, and the items that found no room, largest first.
    """
    room = np.full(bins, budget, dtype=np.int64)
    cost = np.zeros(bins)
    filled: list[list[int]] = [[] for _ in range(bins)]
    waiting = []
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        place = int(np.where(room >= sizes[i], cost, np.inf).argmin())
        if room[place] < sizes[i]:
            waiting.append(i)
            continue
        filled[place].append(i)
        room[place] -= sizes[i]
        cost[place] += costs[i]
    return filled, waiting
