"""A video as it grows in the store: a segment per unit, a thumbnail, and the state from which any replica can go on."""

import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load, save
from torch import Tensor

from rayramid.models import storage
from rayramid.models.brief import Frames
from rayramid.models.media.preview import webp_thumbnail
from rayramid.models.media.segments import SegmentWriter, remux
from rayramid.models.render import Projector, first_latent
from rayramid.models.vae.model import CausalVAE
from rayramid.serve.engine import Finished
from rayramid.serve.job import Job
from rayramid.serve.store import Store

SESSION, VAE = "session.", "vae."


class Reel:
    """The stored part of one job's video, `units` units long. All methods block."""

    def __init__(self, store: Store, vae: CausalVAE, job: Job) -> None:
        self._store = store
        self._vae = vae
        self._job = job
        self._projector = Projector(vae, job.brief)
        self._writer = SegmentWriter(job.brief.width, job.brief.height, job.brief.fps)
        self.units = 0

    def load(self) -> dict[str, Tensor] | None:
        """Go on where the store's state ends; returns the session's state, None if there is none."""
        url = self._store.at(self._job.id, "session.safetensors")
        if not storage.exists(url):
            return None
        state = load(storage.read_bytes(url))
        self.units = int(state["units"])
        self._projector.shown = int(state["shown"])
        self._projector.state = tuple(state[f"{VAE}{i}"] for i in range(sum(key.startswith(VAE) for key in state)))
        return {key.removeprefix(SESSION): tensor for key, tensor in state.items() if key.startswith(SESSION)}

    def add_image(self) -> Tensor:
        """Begin with the job's first frame; returns it as a normalised latent [C, 1, H, W]."""
        picture = Image.open(io.BytesIO(storage.read_bytes(self._store.image(self._job.id))))
        image_HWC = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        latent_CTHW = first_latent(self._vae, image_HWC, self._job.brief)
        self._show(self._projector.frames(latent_CTHW))
        return latent_CTHW

    def add(self, finished: Finished) -> None:
        """Decode and store a unit, then the state after it."""
        self._show(self._projector.frames(finished.unit.latent_CTHW))
        state = {f"{SESSION}{key}": tensor.contiguous() for key, tensor in finished.state.items()}
        state |= {f"{VAE}{i}": tensor.contiguous() for i, tensor in enumerate(self._projector.state or ())}
        state |= {"units": torch.tensor(self.units), "shown": torch.tensor(self._projector.shown)}
        storage.write_atomic(self._store.at(self._job.id, "session.safetensors"), save(state))

    def finish(self) -> None:
        """Write the whole video, without encoding anything again."""
        job_id = self._job.id
        with tempfile.TemporaryDirectory() as folder:
            fragmented, plain = Path(folder, "fragmented.mp4"), Path(folder, "video.mp4")
            with fragmented.open("wb") as file:
                file.write(storage.read_bytes(self._store.init_segment(job_id)))
                for unit in range(self.units):
                    file.write(storage.read_bytes(self._store.segment(job_id, unit)))
            remux(fragmented, plain)
            storage.upload(plain, self._store.at(job_id, "video.mp4"))

    def _show(self, frames_THWC: Frames) -> None:
        job_id = self._job.id
        if self.units == 0:
            storage.write_atomic(self._store.at(job_id, "thumbnail.webp"), webp_thumbnail(frames_THWC[0]))
            storage.write_atomic(self._store.init_segment(job_id), self._writer.init_segment())
        if len(frames_THWC):
            first = self._projector.shown - len(frames_THWC)
            segment = self._writer.media_segment(frames_THWC, first, self.units + 1)
            storage.write_atomic(self._store.segment(job_id, self.units), segment)
        self.units += 1
