"""The work of an evaluation in pieces: some videos made, or drawn clips encoded and decoded, and each one judged.

Shape letters: T frames, H W pixels, C = 3.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch

from rayramid.models.brief import Frames, write_brief
from rayramid.models.card import VAE_STRIDE
from rayramid.models.checkpoint import load_model
from rayramid.models.cpu import compute_on_cpu
from rayramid.models.media.preview import sprite_sheet
from rayramid.models.precision import sampling_dtype
from rayramid.models.sprites.captions import Demand, write
from rayramid.models.sprites.draw import held_out_scenes
from rayramid.models.sprites.judge.verdict import judge
from rayramid.models.sprites.render import render
from rayramid.models.sprites.scene import Scene
from rayramid.models.vae.streaming import decode_video, encode_video
from rayramid.platform.evaluation.drift import measures_of
from rayramid.platform.evaluation.spec import EvalSpec
from rayramid.platform.evaluation.videos import make_videos

Kind = Literal["text", "image", "render"]
# Of what there are measures by unit: videos from captions, their scenes as they are drawn, and scenes through the VAE.
Origin = Literal["made", "drawn", "decoded"]

STRIP_FRAMES = 9
WIDTH = 96


@dataclass(frozen=True)
class Piece:
    """Some cases that are done together: scenes `first` to `first + count` - 1 of the held-out ones.

    Attributes:
        kind: a video from a caption; one from a caption and its scene's first frame; the scene itself through the VAE.
        first: number of the first scene.
        count: how many.
        steps: of every stage and unit; None takes the model's own.
    """

    kind: Kind
    first: int
    count: int
    steps: int | None = None


@dataclass(frozen=True)
class Case:
    """One video with its verdicts.

    Attributes:
        piece: what it belongs to.
        index: number of its scene.
        caption: what it was to show.
        verdicts: by the number of frames judged, every part of the verdict.
        psnr_T: of each frame against the scene, in dB; empty unless the scene went through the VAE.
        drift: of the video and of what it is compared with, how it changes from unit to unit (`drift.measures_of`);
            empty for images, and for steps that are not the model's own.
        strip: some of its frames side by side, WebP.
    """

    piece: Piece
    index: int
    caption: str
    verdicts: Mapping[int, Mapping[str, bool]]
    psnr_T: tuple[float, ...]
    drift: Mapping[Origin, Mapping[str, Any]]
    strip: bytes


def pieces(spec: EvalSpec) -> list[Piece]:
    """All the work, in pieces of one batch, the longest first; fewer prompts make every part smaller."""

    def cut(kind: Kind, most: int, steps: int | None = None) -> Iterator[Piece]:
        count = min(most, spec.prompts)
        for first in range(0, count, spec.batch):
            yield Piece(kind, first, min(spec.batch, count - first), steps)

    return [
        *(
            piece
            for steps in sorted(spec.curve.steps, reverse=True)
            for piece in cut("text", spec.curve.prompts, steps)
        ),
        *cut("text", spec.prompts),
        *cut("image", spec.images),
        *cut("render", spec.renders),
    ]


def shown_frames(frames: int) -> list[int]:
    """Which of a video's frames its strip has."""
    return list(range(0, frames, max(1, frames // (STRIP_FRAMES - 1))))[:STRIP_FRAMES]


class Examiner:
    """Does pieces with a model that is loaded once."""

    def __init__(self, spec: EvalSpec) -> None:
        compute_on_cpu(max(1, int(spec.workers.cpus)))
        self._spec = spec
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_model(spec.model, device, sampling_dtype(device))

    def examine(self, piece: Piece) -> list[Case]:
        """Make and judge the videos of a piece."""
        card = self._model.card
        frames = max(self._spec.lengths)
        worlds = held_out_scenes(self._spec.seed, card.width, card.height, frames)
        scenes = list(islice(worlds, piece.first, piece.first + piece.count))
        shown = self._through_vae(scenes, frames) if piece.kind == "render" else self._made(scenes, piece, frames)
        return [
            Case(
                piece=piece,
                index=piece.first + number,
                caption=write(scene.demand),
                verdicts={length: _judged(video_THWC[:length], scene.demand) for length in self._spec.lengths},
                psnr_T=_psnr(video_THWC, render(scene, frames)) if piece.kind == "render" else (),
                drift=self._drift(piece, scene, video_THWC),
                strip=sprite_sheet(video_THWC[shown_frames(frames)], STRIP_FRAMES, WIDTH),
            )
            for number, (scene, video_THWC) in enumerate(zip(scenes, shown, strict=True))
        ]

    def _made(self, scenes: list[Scene], piece: Piece, frames: int) -> list[Frames]:
        card = self._model.card
        briefs = [
            write_brief(
                card,
                write(scene.demand),
                seconds=frames / card.fps,
                seed=self._spec.seed + piece.first + number,
                steps=piece.steps,
            )
            for number, scene in enumerate(scenes)
        ]
        images = [render(scene, 1)[0] for scene in scenes] if piece.kind == "image" else None
        return make_videos(self._model, briefs, images)

    def _drift(self, piece: Piece, scene: Scene, video_THWC: Frames) -> dict[Origin, Mapping[str, Any]]:
        shown: dict[Origin, Frames] = {}
        if piece.kind == "render":
            shown["decoded"] = video_THWC
        elif piece.kind == "text" and piece.steps is None:
            shown = {"made": video_THWC, "drawn": render(scene, len(video_THWC))}
        unit = VAE_STRIDE * (self._model.card.frames_per_unit or 1)
        borders = range(1, len(video_THWC), unit)
        return {origin: measures_of(np.split(frames_THWC, borders)) for origin, frames_THWC in shown.items()}

    def _through_vae(self, scenes: list[Scene], frames: int) -> Iterator[Frames]:
        vae = self._model.vae
        # A video has 1 + 8n frames on its way; what is beyond the wanted ones is cut off.
        whole = 1 + -(-(frames - 1) // 8) * 8
        for scene in scenes:
            decoded = list(decode_video(vae, encode_video(vae, [render(scene, whole)])))
            yield np.concatenate(decoded)[:frames]


def _judged(video_THWC: Frames, demand: Demand) -> dict[str, bool]:
    verdict = judge(video_THWC, demand)
    return {
        "fully_right": verdict.fully_right,
        "kept": verdict.colours and verdict.shapes and verdict.persistent,
        **asdict(verdict),
    }


def _psnr(video_THWC: Frames, truth_THWC: Frames) -> tuple[float, ...]:
    errors_T = ((video_THWC.astype(np.float32) - truth_THWC) ** 2).mean((1, 2, 3))
    return tuple(float(psnr) for psnr in 10 * np.log10(255**2 / np.maximum(errors_T, 1e-6)))
