"""What `model.start` names: a checkpoint folder, the output of a finished run, or a released model."""

from dataclasses import dataclass
from typing import Protocol

from rayramid.models import storage
from rayramid.models.card import CARD, ModelCard, load_card
from rayramid.models.checkpoint import load_dit
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.importers.release import Release, open_release
from rayramid.models.vae.io import fingerprint

RUN = "run.json"


class Start(Protocol):
    """A model to go on from."""

    def card(self) -> ModelCard:
        """What it is."""

    def dit(self) -> DiT:
        """Its weights, in the dtypes that are stored."""


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder."""

    url: str

    def card(self) -> ModelCard:
        """What the folder's card says."""
        return load_card(self.url)

    def dit(self) -> DiT:
        """The DiT in it."""
        return load_dit(self.url, self.card())


def open_start(start: str, variant: str | None) -> Start:
    """The model at the path or URL `start`; `variant` chooses one of a release.

    Raises:
        UserError: there is none, or a run that has not exported one yet.
    """
    if storage.exists(storage.join(start, CARD)):
        return Folder(start)
    if storage.exists(storage.join(start, RUN)):
        exported = storage.join(start, "model")
        if not storage.exists(storage.join(exported, CARD)):
            raise UserError(f"{start}: a run that has exported no model yet; let it end first")
        return Folder(exported)
    return open_release(start, variant)


def vae_fingerprint(start: Start) -> str:
    """Identity of the VAE whose latents the model knows; empty when it comes without one. Reads a release's VAE."""
    if isinstance(start, Release):
        vae = start.vae()
        return "" if vae is None else fingerprint(vae)
    return start.card().vae_fingerprint
