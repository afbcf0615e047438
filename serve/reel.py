"""A video as it grows in the store: a segment and the latents per unit, and in the end the results.

Units that are there already are decoded again when a worker goes on with a video: that costs less than to store with
each unit what the decoder remembers, which at full size is gigabytes.
"""

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from safetensors.torch import load, save
from torch import Tensor

from rayramid.models import storage
from rayramid.models.brief import Frames, Prompts
from rayramid.models.media.preview import sprite_sheet, webp_thumbnail
from rayramid.models.media.segments import SegmentWriter, remux
from rayramid.models.provenance import provenance
from rayramid.models.render import Projector, first_latent
from rayramid.models.vae.model import CausalVAE
from rayramid.serve.job import Job
from rayramid.serve.store import Store

LATENT = "latent"
SHEET_COLUMNS, SHEET_FRAMES = 5, 25


class Reel:
    """The stored part of one job's video; `playable` is how many units have a segment. All methods block."""

    def __init__(self, store: Store, vae: CausalVAE, job: Job) -> None:
        self._store = store
        self._vae = vae
        self._job = job
        self._projector = Projector(vae, job.brief)
        self._writer = SegmentWriter(job.brief.width, job.brief.height, job.brief.fps)
        self._sheet: list[Frames] = []
        chosen = np.linspace(0, job.brief.frames - 1, min(job.brief.frames, SHEET_FRAMES))
        self._on_sheet = set(chosen.round().astype(int).tolist())
        self.playable = 0

    def load(self) -> tuple[list[Tensor], Prompts]:
        """The finished units, normalised latents [C, t, H, W], and the prompts that began with them."""
        latents, prompts = [], []
        for unit in range(self._store.units(self._job.id)):
            data = storage.read_bytes(self._store.latents(self._job.id, unit))
            latents.append(load(data)[LATENT])
            prompt = _metadata(data).get("prompt")
            if prompt is not None:
                prompts.append((unit, prompt))
        self.playable = max(0, len(latents) - 1)
        return latents, tuple(prompts)

    def begin(self) -> None:
        """Store what players need before the first segment."""
        storage.write_atomic(self._store.init_segment(self._job.id), self._writer.init_segment())

    def image(self) -> Tensor:
        """The picture that the job begins with as a normalised latent [C, 1, H, W]."""
        picture = Image.open(io.BytesIO(storage.read_bytes(self._store.image(self._job.id))))
        image_HWC = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        return first_latent(self._vae, image_HWC, self._job.brief)

    def frames(self, latent_CTHW: Tensor) -> Frames:
        """The next unit's frames [T, H, W, C]. Units are decoded in order, those too that are there already."""
        first = self._projector.shown
        frames_THWC = self._projector.frames(latent_CTHW)
        self._sheet += [frame for n, frame in enumerate(frames_THWC, start=first) if n in self._on_sheet]
        return frames_THWC

    def show(self, unit: int, frames_THWC: Frames) -> None:
        """Store a unit's segment, before the next unit is decoded; done again, it is the same or, extended, longer."""
        first = self._projector.shown - len(frames_THWC)
        segment = self._writer.media_segment(frames_THWC, first, unit + 1)
        storage.write_atomic(self._store.segment(self._job.id, unit), segment)
        self.playable = unit + 1

    def keep(self, unit: int, latent_CTHW: Tensor, prompt: str | None) -> None:
        """Store the latents of a unit whose segment is there, with the prompt that begins with it: it is finished."""
        if unit == 0:
            storage.write_atomic(self._store.at(self._job.id, "thumbnail.webp"), webp_thumbnail(self._sheet[0]))
        metadata = {} if prompt is None else {"prompt": prompt}
        data = save({LATENT: latent_CTHW.cpu().contiguous()}, metadata)
        storage.write_atomic(self._store.latents(self._job.id, unit), data)

    def finish(self, prompts: Mapping[int, str]) -> None:
        """Write the whole video, without encoding anything again, and its sprite sheet; `prompts` are by unit."""
        job_id = self._job.id
        with tempfile.TemporaryDirectory() as folder:
            fragmented, plain = Path(folder, "fragmented.mp4"), Path(folder, "video.mp4")
            with fragmented.open("wb") as file:
                file.write(storage.read_bytes(self._store.init_segment(job_id)))
                for unit in range(self.playable):
                    file.write(storage.read_bytes(self._store.segment(job_id, unit)))
            comment = provenance(
                model=self._job.model,
                model_version=self._job.model_version,
                seed=self._job.brief.seed,
                prompts=prompts,
                video_id=job_id,
            )
            remux(fragmented, plain, {"comment": comment})
            storage.upload(plain, self._store.at(job_id, "video.mp4"))
        sheet = sprite_sheet(np.stack(self._sheet), min(SHEET_COLUMNS, len(self._sheet)))
        storage.write_atomic(self._store.at(job_id, "spritesheet.webp"), sheet)


def _metadata(data: bytes) -> dict[str, str]:
    """What stands in a safetensors file beside tensors."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return metadata
