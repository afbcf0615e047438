"""Distances between two sets of features: Fréchet's between Gaussians, and the kernel distance (squared MMD) of KID.

With features of an image or video network these are FID, FVD and KID; what they mean is the features' business. All in
float64. Shape letters: N and M items, D features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Features = NDArray[Any]

# Items of one side whose kernel values are in memory at once.
ROWS = 1024


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian of items seen so far, in a form that is added up: `of(a) + of(b)` is that of a and b together.

    Attributes:
        count: how many items.
        mean_D: their mean.
        scatter_DD: sum of the outer products of their differences from the mean.
    """

    count: int
    mean_D: Floats
    scatter_DD: Floats

    @classmethod
    def empty(cls, features: int) -> "Gaussian":
        """That of no items, with which a sum begins."""
        return cls(0, np.zeros(features), np.zeros((features, features)))

    @classmethod
    def of(cls, features_ND: Features) -> "Gaussian":
        """That of some items, at least one."""
        items_ND = np.asarray(features_ND, np.float64)
        if items_ND.ndim != 2 or not len(items_ND):
            raise ValueError(f"features of shape {items_ND.shape}; expected [items, features] with an item at least")
        mean_D = items_ND.mean(0)
        centred_ND = items_ND - mean_D
        return cls(len(items_ND), mean_D, centred_ND.T @ centred_ND)

    def __add__(self, other: "Gaussian") -> "Gaussian":
        """Both together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        if not count:
            return self
        between_D = other.mean_D - self.mean_D
        return Gaussian(
            count,
            self.mean_D + between_D * (other.count / count),
            self.scatter_DD + other.scatter_DD + np.outer(between_D, between_D) * (self.count * other.count / count),
        )

    @property
    def covariance_DD(self) -> Floats:
        """The unbiased covariance; of a single item it is 0."""
        return self.scatter_DD / max(1, self.count - 1)


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) of two Gaussians (Dowson and Landau 1982), squared as in FID.

    From few items it is too large, the more so the more features there are: compare equal numbers of items only.
    """
    if not one.count or not other.count:
        raise ValueError("a Fréchet distance needs items on both sides")
    # With C = F Fᵀ the trace of (C1 C2)^½ is the sum of the singular values of F1ᵀ F2, whatever the factors.
    first_DD, second_DD = _factor(one.covariance_DD), _factor(other.covariance_DD)
    shared = np.linalg.svd(first_DD.T @ second_DD, compute_uv=False).sum()
    apart = ((one.mean_D - other.mean_D) ** 2).sum()
    distance = apart + (first_DD**2).sum() + (second_DD**2).sum() - 2 * shared
    return max(0.0, float(distance))


def kernel_distance(one_ND: Features, other_MD: Features) -> float:
    """The unbiased squared MMD for the kernel (x·y/D + 1)³, as in KID (Bińkowski et al. 2018).

    Its expectation does not depend on the number of items, and it may be below 0 where the two don't differ.
    """
    one, other = np.asarray(one_ND, np.float64), np.asarray(other_MD, np.float64)
    if min(len(one), len(other)) < 2:
        raise ValueError(f"a kernel distance needs two items on both sides, here are {len(one)} and {len(other)}")
    within = _kernel_sum(one, one, same=True) / (len(one) * (len(one) - 1))
    within += _kernel_sum(other, other, same=True) / (len(other) * (len(other) - 1))
    return within - 2 * _kernel_sum(one, other) / (len(one) * len(other))


def _factor(covariance_DD: Floats) -> Floats:
    """Some F with F Fᵀ = C; a covariance from few items is singular, so rounding may push eigenvalues below 0."""
    values_D, vectors_DD = np.linalg.eigh(covariance_DD)
    return vectors_DD * np.sqrt(values_D.clip(min=0))


def _kernel_sum(one_ND: Floats, other_MD: Floats, *, same: bool = False) -> float:
    """Sum of the kernel over all pairs, or over those of different items if both sides are the `same`."""
    features = one_ND.shape[1]
    total = sum(
        float(((rows @ other_MD.T / features + 1) ** 3).sum())
        for rows in (one_ND[start : start + ROWS] for start in range(0, len(one_ND), ROWS))
    )
    return total - float((((one_ND**2).sum(1) / features + 1) ** 3).sum()) if same else total
