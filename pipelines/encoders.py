"""The VAE and the text encoder of a dataset: given by URL, or made once under its root and never changed."""

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.media.errors import DecodeError
from rayramid.models.stores.store import MissingError
from rayramid.pipelines.frames import Frames, SourceFrames
from rayramid.pipelines.job import Row

log = logging.getLogger(__name__)

# Enough clips for a stable basis, and of each the first frames only: the fit holds all of them in memory.
PCA_CLIPS = 48
PCA_BYTES = 512 * 1024**2
PCA_FRAMES = 17
PCA_LEAST_FRAMES = 9


@dataclass(frozen=True)
class Encoder:
    """Which encoder: its URL (relative to the root where it lies below it) and the hash of its weights."""

    url: str
    fingerprint: str


def resolved(root: str, encoder: Encoder) -> str:
    """The URL that any process can load the encoder from."""
    return encoder.url if "://" in encoder.url or encoder.url.startswith("/") else storage.join(root, encoder.url)


def made(root: str, which: str) -> Encoder | None:
    """The encoder that was made for this dataset (`which`: vae or text), None if none was."""
    try:
        return Encoder(**json.loads(storage.read_bytes(_record(root, which))))
    except MissingError:
        return None


def text_encoder(root: str, choice: str) -> Encoder:
    """The text encoder of the spec's `embed.text`; `tiny` builds the seeded one."""
    from rayramid.models.text import load_text
    from rayramid.models.tiny import write_tiny_text

    if choice != "tiny":
        return Encoder(choice, load_text(choice).fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_text(folder)
        fingerprint = load_text(folder).fingerprint
        storage.sync_up(folder, storage.join(root, "models", "text", fingerprint))
    return _record_once(root, "text", Encoder(f"models/text/{fingerprint}", fingerprint))


def sample(clips: pa.Table) -> list[Row]:
    """The clips that a new VAE is fitted to, rows with a bucket: a few long enough, the same for the same clips."""
    usable = clips.filter(pc.greater_equal(clips["frames"], PCA_LEAST_FRAMES))
    return list(usable.sort_by("clip_id").slice(0, PCA_CLIPS).to_pylist())


def vae_encoder(root: str, choice: str, clips: Sequence[Row], deadline_s: float) -> Encoder:
    """The VAE of the spec's `encode.vae`; `pca` fits one to a sample of clips."""
    from rayramid.models.vae.io import fingerprint, load_vae, save_vae
    from rayramid.models.vae.pca import pca_vae

    if choice != "pca":
        return Encoder(choice, fingerprint(load_vae(choice)))
    if not clips:
        raise UserError(f"encode.vae: pca needs clips of at least {PCA_LEAST_FRAMES} frames, and none was kept")
    vae = pca_vae(_beginnings(clips, deadline_s))
    name = fingerprint(vae)
    save_vae(storage.join(root, "models", "vae", name), vae)
    return _record_once(root, "vae", Encoder(f"models/vae/{name}", name))


def _beginnings(clips: Sequence[Row], deadline_s: float) -> Iterator[Frames]:
    from rayramid.pipelines.encode import clip_frames

    frames = SourceFrames(deadline_s)
    held = 0
    for clip in clips:
        try:
            beginning = np.concatenate(list(clip_frames(frames, {**clip, "frames": min(clip["frames"], PCA_FRAMES)})))
        except DecodeError as error:
            # The encode job meets the same clip and reports it; the fit does without.
            log.warning("clip left out of the fit", extra={"clip": clip["clip_id"], "reason": str(error)})
            continue
        held += beginning.nbytes
        if held > PCA_BYTES:
            return
        yield beginning


def _record(root: str, which: str) -> str:
    return storage.join(root, "models", f"{which}.json")


def _record_once(root: str, which: str, encoder: Encoder) -> Encoder:
    # Of two runs at once, both use what the first recorded.
    if storage.create(_record(root, which), json.dumps(asdict(encoder)).encode()):
        return encoder
    recorded = made(root, which)
    assert recorded is not None
    return recorded
