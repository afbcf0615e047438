"""What a VAE is trained for: the terms of its loss, each for one clip.

Every mean goes over the whole clip: a rank that holds a part of it multiplies its own mean by its part's size.
Shapes: B batch, T frames, H height, W width.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# Above this, the adaptive weight says nothing but that the adversarial gradient vanishes.
LARGEST_WEIGHT = 1e4


def reconstruction_error(frames: Tensor, target: Tensor, kind: Literal["l1", "l2"]) -> Tensor:
    """Mean absolute or squared error of frames in [-1, 1]."""
    return F.l1_loss(frames, target) if kind == "l1" else F.mse_loss(frames, target)


def deceiving_loss(fake_logits: Tensor) -> Tensor:
    """The generator's adversarial term: smaller, the more real the discriminator takes its frames for."""
    return -fake_logits.mean()


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The discriminator's loss: real patches should score above 1, fake ones below -1."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def adaptive_weight(faithful_gradient: Tensor, deceiving_gradient: Tensor) -> Tensor:
    """The weight that gives the adversarial term as large a gradient as the others have, at the decoder's last layer.

    From "Taming Transformers for High-Resolution Image Synthesis" (2012.09841), Eq. 7.
    """
    ratio = torch.linalg.vector_norm(faithful_gradient) / (torch.linalg.vector_norm(deceiving_gradient) + 1e-4)
    return ratio.clamp(max=LARGEST_WEIGHT).detach()
