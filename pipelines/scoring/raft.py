"""Optical flow by RAFT, with weights of the user's: torchvision's `raft_small`, which no wheel brings.

Shape letters: H W pixels, C = 3 (RGB), 2 = x and y.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models.optical_flow import raft_small

from rayramid.models import storage
from rayramid.models.errors import UserError

# RAFT halves three times and then looks at a pyramid of four levels: smaller pictures it can't see.
LEAST = 128
MULTIPLE = 8
REFINEMENTS = 12


class Raft:
    """Flow between two pictures of luma; no colours are needed."""

    def __init__(self, weights: str) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = raft_small(weights=None)
        with tempfile.TemporaryDirectory(prefix="rayramid-") as folder:
            path = Path(folder) / "weights"
            storage.download(weights, path)
            try:
                self._model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            except RuntimeError:
                raise UserError(f"score.raft: {weights}: not the weights of torchvision's raft_small") from None
        self._model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, previous_HW: NDArray[np.uint8], current_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Optical flow [H, W, 2] in pixels."""
        height, width = previous_HW.shape
        scale = max(1.0, LEAST / min(height, width))
        size = tuple(-(-round(side * scale) // MULTIPLE) * MULTIPLE for side in (width, height))
        pair = [self._prepared(cv2.resize(luma, size).astype(np.uint8)) for luma in (previous_HW, current_HW)]
        flow_HW2 = self._model(*pair, num_flow_updates=REFINEMENTS)[-1][0].permute(1, 2, 0).cpu().numpy()
        back = cv2.resize(flow_HW2, (width, height))
        return back / np.array([size[0] / width, size[1] / height], np.float32)

    def _prepared(self, luma_HW: NDArray[np.uint8]) -> torch.Tensor:
        scaled_HW = torch.from_numpy(luma_HW).to(self._device).float() / 127.5 - 1
        return scaled_HW.expand(1, 3, *scaled_HW.shape)
