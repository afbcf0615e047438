"""Overlay text: the share of the picture that lines of text take, by RapidOCR's detector (the extra `ocr`)."""

import cv2
import numpy as np

from rayramid.models.errors import UserError
from rayramid.pipelines.frames import Frames


class TextArea:
    """Finds text in frames; the detector's weights are in RapidOCR's wheel."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError:
            raise UserError("score.text: rapidocr is not installed; try `pip install rayramid[ocr]`") from None
        threads = "EngineConfig.onnxruntime.intra_op_num_threads"
        self._find = RapidOCR(params={"Global.log_level": "error", threads: 1})

    def __call__(self, frames_THWC: Frames) -> float:
        """The mean share of the picture, 0..1, over the frames [T, H, W, 3]."""
        return float(np.mean([self._share(frame) for frame in frames_THWC]))

    def _share(self, frame_HWC: Frames) -> float:
        found = self._find(np.ascontiguousarray(frame_HWC[..., ::-1]), use_det=True, use_cls=False, use_rec=False)
        covered = np.zeros(frame_HWC.shape[:2], np.uint8)
        for corners in () if found.boxes is None else found.boxes:
            cv2.fillPoly(covered, [np.round(corners).astype(np.int32)], 1)
        return float(covered.mean())
