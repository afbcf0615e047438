"""LPIPS, from the package `lpips` (the extra `vae`), whose backbone's weights come from a folder of the user's.

The package would download the backbone; it brings the linear layers on top of it.
"""

import importlib.util
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from rayramid.models import storage
from rayramid.models.weights import check_keys, read_weights, shapes

Backbone = Literal["vgg", "alex"]
# Beginnings of the names that torchvision gives its weight files.
FILES: dict[Backbone, str] = {"vgg": "vgg16", "alex": "alexnet"}
FRAMES_AT_ONCE = 16


def backbone_file(folder: str | None, backbone: Backbone) -> str | None:
    """The backbone's weight file in `folder`, as torchvision names it (`vgg16-397923af.pth`), also as safetensors."""
    if folder is None:
        return None
    names = (storage.relative(folder, file) for file in storage.list_files(folder))
    found = [
        name for name in names if name.startswith(FILES[backbone]) and name.endswith((".pth", ".pt", ".safetensors"))
    ]
    return storage.join(folder, found[0]) if found else None


def missing(folder: str | None, backbone: Backbone) -> str | None:
    """Why LPIPS can't be computed, in a few words; None if it can."""
    if importlib.util.find_spec("lpips") is None:
        return "the package lpips is not installed (pip install 'rayramid[vae]')"
    if folder is None:
        return "no folder with its backbone's weights is named"
    if backbone_file(folder, backbone) is None:
        return f"{folder} has no {FILES[backbone]}*.pth or .safetensors"
    return None


class Perceptual(nn.Module):
    """LPIPS between frames; its weights are fixed.

    Args:
        folder: holds torchvision's weights of the backbone.
        backbone: `vgg` is what VAEs are trained with, `alex` what is mostly reported.
    """

    def __init__(self, folder: str, backbone: Backbone = "vgg"):
        super().__init__()
        import lpips

        file = backbone_file(folder, backbone)
        assert file is not None, "ask `missing` before"
        weights = read_weights(file)
        with warnings.catch_warnings():
            # It speaks to torchvision in deprecated words.
            warnings.filterwarnings("ignore", module="torchvision")
            # pnet_rand: it builds the backbone without downloading weights, which follow here.
            self.lpips = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)
        keys = {_published(key): key for key in self.lpips.net.state_dict()}
        found = {name: weight for name, weight in weights.items() if name in keys}
        check_keys(shapes(found), {name: self.lpips.net.state_dict()[key].shape for name, key in keys.items()}, file)
        self.lpips.net.load_state_dict({keys[name]: weight for name, weight in found.items()})
        self.requires_grad_(False).eval()

    def forward(self, frames_B3THW: Tensor, target_B3THW: Tensor) -> Tensor:
        """LPIPS of each frame, [B, T]; frames in [-1, 1]."""
        B, _, T = frames_B3THW.shape[:3]
        pairs = zip(
            frames_B3THW.transpose(1, 2).flatten(0, 1).split(FRAMES_AT_ONCE),
            target_B3THW.transpose(1, 2).flatten(0, 1).split(FRAMES_AT_ONCE),
            strict=True,
        )
        return torch.cat([self.lpips(frames, target).flatten() for frames, target in pairs]).view(B, T)


def _published(key: str) -> str:
    """`slice2.5.weight` of lpips is `features.5.weight` of torchvision."""
    _, layer, kind = key.split(".")
    return f"features.{layer}.{kind}"
