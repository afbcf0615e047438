"""Frames brought to a size: aspect kept, centre cropped, antialiased."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize_crop(frames_THWC: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Scales frames to cover `height` × `width` and cuts away what stands over, equally on both sides."""
    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    resized = np.empty((len(frames_THWC), height, width, 3), np.uint8)
    for frame, target in zip(frames_THWC, resized, strict=True):
        target[:] = resize_crop_frame(frame, height, width)
    return resized


def resize_crop_frame(frame_HWC: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """One frame of `resize_crop`."""
    source_height, source_width = frame_HWC.shape[:2]
    if (source_height, source_width) == (height, width):
        return frame_HWC
    scale = max(height / source_height, width / source_width)
    # Rounding may leave a hair less than nothing.
    left = max(0.0, (source_width - width / scale) / 2)
    top = max(0.0, (source_height - height / scale) / 2)
    # Pillow's filters widen with the scale (antialiasing) and take the crop as a box of fractions of pixels.
    image = Image.fromarray(np.ascontiguousarray(frame_HWC))
    box = (left, top, source_width - left, source_height - top)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))
