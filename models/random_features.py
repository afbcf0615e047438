"""Features of videos by a 3D convolutional network that nobody trained: its weights are drawn from a fixed seed.

Distances between such features say which of two models is nearer to the same data under the same conditions. They can't
be compared with published numbers: they are no FVD, whose network is I3D.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rayramid.models.brief import Frames

NAME = "random3d"
"""What results call these features; another network must have another name."""

SEED = 20241008
# Output channels and stride (time, height, width) of each layer.
LAYERS = ((16, (1, 2, 2)), (32, (2, 2, 2)), (64, (2, 2, 2)))
FEATURES = sum(channels for channels, _ in LAYERS)
# Grey values that count as one; it brings features of ordinary videos to about 1.
CONTRAST = 4.0


class RandomFeatures(nn.Module):
    """Three layers of 3x3x3 filters with ReLU; features are the root mean squares of their 112 outputs.

    Every filter's weights have the mean 0 per input, and those of half of the first layer's also over time alone: with
    plain random weights the mean colour drowns everything else, while these see edges, textures and motion (and of
    colours their contrasts only).

    Any length and size has as many features, but other statistics: compare videos of one length and size.
    """

    def __init__(self) -> None:
        super().__init__()
        draw = np.random.default_rng(SEED)
        inputs = 3
        self.layers = nn.ModuleList()
        for channels, stride in LAYERS:
            weights = draw.standard_normal((channels, inputs, 3, 3, 3), np.float32)
            weights -= weights.mean((2, 3, 4), keepdims=True)
            if not self.layers:
                weights[channels // 2 :] -= weights[channels // 2 :].mean(2, keepdims=True)
            # He et al. 2015: outputs keep their size from layer to layer.
            weights *= np.sqrt(2 / (weights**2).sum((1, 2, 3, 4), keepdims=True))
            layer = nn.Conv3d(inputs, channels, 3, stride, padding=1, padding_mode="replicate", bias=False)
            layer.weight = nn.Parameter(torch.from_numpy(weights), requires_grad=False)
            self.layers.append(layer)
            inputs = channels

    @torch.no_grad()
    def forward(self, videos_NTHWC: Tensor) -> Tensor:
        """Features [N, 112] in fp32 of videos [N, T, H, W, 3], uint8."""
        x_NCTHW = videos_NTHWC.float().permute(0, 4, 1, 2, 3) / CONTRAST
        features = []
        for layer in self.layers:
            x_NCTHW = F.relu(layer(x_NCTHW))
            features.append((x_NCTHW**2).mean((2, 3, 4)).sqrt())
        return torch.cat(features, 1)


def random_features(videos_NTHWC: Frames, device: str = "cpu") -> NDArray[np.float32]:
    """Features [N, 112] of videos [N, T, H, W, 3], one at a time so that memory is that of one video."""
    network = RandomFeatures().to(device)
    videos = (torch.from_numpy(np.ascontiguousarray(video_THWC))[None].to(device) for video_THWC in videos_NTHWC)
    return torch.cat([network(video) for video in videos]).cpu().numpy()
