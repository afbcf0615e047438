"""Names of what a clip shows: equal for equal pixels, near for near ones.

Shape letters: T frames, H W pixels.
"""

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from rayramid.pipelines.frames import Frames

# Frames that a perceptual hash looks at, evenly over the clip; 64 bits of each.
HASHED_FRAMES = 4
HASH_BYTES = HASHED_FRAMES * 8


def content_hash(frames_THWC: Frames) -> str:
    """Equal for equal frames alone, whatever file they are in."""
    shape = "x".join(map(str, frames_THWC.shape))
    return hashlib.sha256(shape.encode() + frames_THWC.tobytes()).hexdigest()[:32]


def perceptual_hash(luma_THW: NDArray[np.uint8]) -> str:
    """A difference hash of each of HASHED_FRAMES frames, in hex: near clips differ in few bits.

    A bit tells whether a pixel of the 9 x 8 thumbnail is brighter than its right neighbour.
    """
    places = np.linspace(0, len(luma_THW) - 1, HASHED_FRAMES).round().astype(int)
    thumbnails = (cv2.resize(luma_THW[place], (9, 8), interpolation=cv2.INTER_AREA).astype(int) for place in places)
    return b"".join(np.packbits(small[:, 1:] < small[:, :-1]).tobytes() for small in thumbnails).hex()
