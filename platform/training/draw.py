"""Random numbers that are a function of names: the same on every worker, after every restart, in every order."""

from hashlib import blake2b

import numpy as np


def draw(*names: int | str) -> int:
    """A uniform integer in [0, 2^63) that belongs to `names`."""
    digest = blake2b("\0".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def draw_below(bound: int, *names: int | str) -> int:
    """A uniform integer in [0, bound)."""
    return draw(*names) % bound


def draw_share(*names: int | str) -> float:
    """A uniform number in [0, 1)."""
    return (draw(*names) >> 10) / 2**53


def permutation(length: int, *names: int | str) -> np.ndarray:
    """A uniform order of `range(length)`.

    Sorts raw Philox output: numpy keeps that fixed over its versions, and not what its `permutation` makes of it.
    """
    return np.argsort(np.random.Philox(key=draw(*names)).random_raw(length), kind="stable")
