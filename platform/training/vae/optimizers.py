"""The optimisers of a VAE and its discriminator."""

import torch
from torch import nn

from rayramid.models.vae.discriminator import PatchDiscriminator
from rayramid.models.vae.model import CausalVAE
from rayramid.platform.training.muon import Muon
from rayramid.platform.training.spec.optimizer import Optimizer
from rayramid.platform.training.vae.spec import Adversarial


def vae_optimizers(vae: CausalVAE, settings: Optimizer) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon for the kernels and matrices of the hidden layers with AdamW for the rest.

    Hidden is what lies between the first and the last convolution of encoder and decoder. Weight decay falls on
    kernels and matrices alone; each group's `lr_scale` multiplies the step's learning rate.
    """
    muon: list[nn.Parameter] = []
    if settings.kind == "muon":
        hidden = (vae.encoder.blocks, vae.encoder.middle, vae.decoder.middle, vae.decoder.blocks)
        muon = [weight for part in hidden for weight in part.parameters() if weight.ndim >= 2]
    taken = {id(weight) for weight in muon}
    rest = [weight for weight in vae.parameters() if id(weight) not in taken]
    optimizers: list[torch.optim.Optimizer] = [_adamw(rest, 1.0, settings.betas, settings.weight_decay)]
    if muon:
        group = {"params": muon, "lr_scale": settings.muon_learning_rate}
        optimizers.append(Muon([group], weight_decay=settings.weight_decay))
    return optimizers


def discriminator_optimizer(discriminator: PatchDiscriminator, settings: Adversarial) -> torch.optim.Optimizer:
    """AdamW with its state at hand, so that checkpoints from before its first step are like those after."""
    optimizer = _adamw(list(discriminator.parameters()), settings.learning_rate, settings.betas, weight_decay=0.0)
    for weight in discriminator.parameters():
        optimizer.state[weight] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(weight),
            "exp_avg_sq": torch.zeros_like(weight),
        }
    return optimizer


def _adamw(
    weights: list[nn.Parameter], scale: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": weight_decay, "lr_scale": scale},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0, "lr_scale": scale},
    ]
    # foreach keeps the order of operations equal on one and on many processes.
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=betas, foreach=True)
