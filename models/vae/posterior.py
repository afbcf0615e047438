"""The Gaussian posterior of a latent, from the moments [B, 2C, T, H, W] that the encoder gives: mean, log-variance."""

from torch import Tensor


def posterior_mean(moments: Tensor) -> Tensor:
    """The mean, [B, C, T, H, W]."""
    return moments.chunk(2, dim=1)[0]


def posterior_sample(moments: Tensor, noise: Tensor) -> Tensor:
    """Mean + sigma · noise, [B, C, T, H, W]; `noise` is N(0, 1) of the mean's shape."""
    mean, log_variance = moments.chunk(2, dim=1)
    return mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise


def posterior_kl(moments: Tensor) -> Tensor:
    """Divergence from N(0, 1), summed over each clip: [B]."""
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
