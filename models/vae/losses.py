"""What a VAE is trained for: the terms of its loss, clip by clip.

Every mean goes over a whole clip: a rank that holds a part of it multiplies its own mean by its part's size.
Shapes: B clips, and any further axes.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# Above this, the adaptive weight says nothing but that the adversarial gradient vanishes.
LARGEST_WEIGHT = 1e4


def reconstruction_error(frames: Tensor, target: Tensor, kind: Literal["l1", "l2"]) -> Tensor:
    """Mean absolute or squared error of frames in [-1, 1], [B]."""
    difference = frames - target
    return (difference.abs() if kind == "l1" else difference.square()).flatten(1).mean(1)


def deceiving_loss(fake_logits: Tensor) -> Tensor:
    """The generator's adversarial term, [B]: smaller, the more real the discriminator takes its frames for."""
    return -fake_logits.flatten(1).mean(1)


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The discriminator's loss, [B]: real patches should score above 1, fake ones below -1."""
    return 0.5 * (F.relu(1 - real_logits).flatten(1).mean(1) + F.relu(1 + fake_logits).flatten(1).mean(1))


def adaptive_weight(faithful_gradient: Tensor, deceiving_gradient: Tensor) -> Tensor:
    """The weight that gives the adversarial term as large a gradient as the others have, at the decoder's last layer.

    From "Taming Transformers for High-Resolution Image Synthesis" (2012.09841), Eq. 7; here each clip has its own, so
    that it does not depend on the clips that are computed with it.

    Args:
        faithful_gradient: of the reconstruction and perceptual terms, clip by clip [B, …].
        deceiving_gradient: of the adversarial term, the same.

    Returns:
        [B].
    """
    faithful_B, deceiving_B = (
        torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in (faithful_gradient, deceiving_gradient)
    )
    return (faithful_B / (deceiving_B + 1e-4)).clamp(max=LARGEST_WEIGHT)
