"""A codec from a handful of clips in seconds: the patch skip of a VAE, fitted in closed form.

The encoder takes the leading principal components of mean-free patches, of first frames and of later 8-frame patches
apart. The decoder is the least-squares map from each latent and its 8 neighbours to the patch. A component with standard deviation s is divided by sqrt(s): if a generator makes the same error in
every channel, this choice gives the smallest error in pixels; it also puts coarse before fine.
Shapes: N patches, P values of a patch, C latent channels, T time, H W pixels, h w latent grid.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rayramid.models.errors import UserError
from rayramid.models.vae.config import SMALL, VAEConfig
from rayramid.models.vae.layers import fold_patches
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.patch_skip import PatchSkip

RIDGE = 1e-3
"""Regularisation of the decoder, as a share of the mean variance of its inputs."""


class PatchStatistics:
    """Sums over patches, from which mean and covariance follow."""

    def __init__(self, values: int):
        self.count = 0
        self.total = torch.zeros(values, dtype=torch.float64)
        self.products = torch.zeros(values, values, dtype=torch.float64)

    def add(self, rows_NP: Tensor) -> None:
        """Take patches into account."""
        self.count += len(rows_NP)
        self.total += rows_NP.double().sum(0)
        self.products += (rows_NP.mT @ rows_NP).double()

    def components(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [P], leading components as columns [P, number], their standard deviations [number]; largest first."""
        mean = self.total / self.count
        covariance = self.products / self.count - mean.outer(mean)
        variances, vectors = torch.linalg.eigh(covariance)
        vectors = vectors[:, -number:].flip(1)
        # An eigenvector's sign is arbitrary; equal clips must give equal codecs everywhere.
        vectors = vectors * vectors.sum(0).sign().where(vectors.sum(0) != 0, 1.0)
        return mean, vectors, variances[-number:].flip(0).clamp_min(1e-12).sqrt()


class LeastSquares:
    """Sums from which the best linear map from latents (with neighbours) to patches follows."""

    def __init__(self, inputs: int, outputs: int):
        self.gram = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self.cross = torch.zeros(inputs + 1, outputs, dtype=torch.float64)

    def add(self, inputs_ND: Tensor, outputs_NP: Tensor) -> None:
        """Take samples into account; a constant input joins them."""
        inputs_ND = F.pad(inputs_ND, (0, 1), value=1.0)
        self.gram += (inputs_ND.mT @ inputs_ND).double()
        self.cross += (inputs_ND.mT @ outputs_NP).double()

    def solve(self) -> tuple[Tensor, Tensor]:
        """Weights [P, D] and bias [P]."""
        ridge = torch.full((len(self.gram),), RIDGE * float(self.gram.diagonal()[:-1].mean()), dtype=torch.float64)
        ridge[-1] = 0
        solution = torch.linalg.solve(self.gram + ridge.diag(), self.cross)
        return solution[:-1].mT, solution[-1]
