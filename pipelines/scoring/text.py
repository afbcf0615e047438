"""Overlay text: the share of the picture that lines of text take, by RapidOCR's detector (the extra `ocr`)."""

import cv2
import numpy as np

from rayramid.models.errors import UserError
from rayramid.pipelines.frames import Frames

# Smaller pictures are enlarged to this shorter side. RapidOCR's own 736 takes six times as long and errs more often.
DETECTED_SIDE = 320
# Of the picture's shorter side, what a line is thick at most: some blurred pictures as a whole are taken for one.
THICKEST = 0.4


class TextArea:
    """Finds text in frames; the detector's weights are in RapidOCR's wheel."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError:
            raise UserError("score.text: rapidocr is not installed; try `pip install rayramid[ocr]`") from None
        detector = {"Det.limit_type": "min", "Det.limit_side_len": DETECTED_SIDE}
        threads = {"EngineConfig.onnxruntime.intra_op_num_threads": 1}
        self._find = RapidOCR(params={"Global.log_level": "error", **detector, **threads})

    def __call__(self, frames_THWC: Frames) -> float:
        """The mean share of the picture, 0..1, over the frames [T, H, W, 3]."""
        return float(np.mean([self._share(frame) for frame in frames_THWC]))

    def _share(self, frame_HWC: Frames) -> float:
        found = self._find(np.ascontiguousarray(frame_HWC[..., ::-1]), use_det=True, use_cls=False, use_rec=False)
        covered = np.zeros(frame_HWC.shape[:2], np.uint8)
        for corners_42 in () if found.boxes is None else found.boxes:
            sides_4 = np.linalg.norm(corners_42 - np.roll(corners_42, 1, axis=0), axis=1)
            if sides_4.min() <= THICKEST * min(covered.shape):
                cv2.fillPoly(covered, [np.round(corners_42).astype(np.int32)], 1)
        return float(covered.mean())
