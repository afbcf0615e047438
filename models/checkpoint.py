"""The checkpoint folder: `rayramid.json`, `dit/`, `vae/`, `text/`, at any URL.

The card is deleted first and written last, so a folder that has one is whole.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import which

import torch

from rayramid.models import storage
from rayramid.models.card import CARD, ModelCard, load_card
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.pyramid import Pyramid
from rayramid.models.text import TextEncoder, load_text, text_fingerprint
from rayramid.models.vae.io import fingerprint, load_vae, save_vae
from rayramid.models.vae.model import CausalVAE
from rayramid.models.weights import adopt, read_weights, write_weights

DIT_WEIGHTS = "dit/model.safetensors"


@dataclass(frozen=True)
class Model:
    """A loaded checkpoint: everything that turns prompts into frames."""

    card: ModelCard
    dit: DiT
    vae: CausalVAE
    text: TextEncoder
    pyramid: Pyramid


def save_model(
    url: str,
    card: ModelCard,
    dit: DiT,
    vae: CausalVAE | None = None,
    text_folder: str | Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint folder, replacing one that is there.

    Args:
        url: the folder.
        card: `dit`, `files` and fingerprints that it leaves empty are taken from what is written.
        dit: weights are stored in the dtypes they have.
        vae: None for bare DiT weights, which `load_dit` reads but `load_model` refuses.
        text_folder: path or URL of the text encoders' ordinary `transformers` folders, copied to `text/`; or of each
            of them, by its name in there.
    """
    storage.check_writable(url)
    if storage.exists(storage.join(url, CARD)):
        stale = load_card(url).files
        storage.delete(storage.join(url, CARD))
        for file in stale:
            storage.delete(storage.join(url, file))
    write_weights(storage.join(url, DIT_WEIGHTS), dit.state_dict())
    if vae is not None:
        save_vae(storage.join(url, "vae"), vae)
    folders = {"": text_folder} if isinstance(text_folder, str) else text_folder or {}
    for name, folder in folders.items():
        copy_folder(folder, storage.join(url, "text", name).rstrip("/"))
    if vae is not None and not card.vae_fingerprint:
        card = replace(card, vae_fingerprint=fingerprint(vae))
    if folders and not card.text_fingerprint:
        card = replace(card, text_fingerprint=text_fingerprint(storage.join(url, "text")))
    files = {relative: storage.size(storage.join(url, relative)) for relative in _weight_files(url)}
    whole = replace(card, dit=asdict(dit.config), files=files)
    storage.write_atomic(storage.join(url, CARD), whole.to_json())


def load_model(url: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Model:
    """Read a checkpoint folder; `dtype` None keeps the stored ones.

    Raises:
        UserError: not a checkpoint, a file missing or truncated, a key missing, surplus or of a wrong shape; names
            the file and the key.
    """
    card = load_card(url)
    for part in ("vae", "text"):
        if not any(file.startswith(f"{part}/") for file in card.files):
            raise UserError(
                f"{url}: holds a DiT without {part}/, so it can't make videos; train from it, or add {part}/"
            )
    check_files(url, card)
    with _local_folder(url) as folder:
        local = str(folder)
        return Model(
            card=card,
            dit=load_dit(local, card, device, dtype),
            vae=load_vae(storage.join(local, "vae")).to(device=device, dtype=dtype),
            text=load_text(storage.join(local, "text"), device=device, dtype=dtype),
            pyramid=pyramid_of(card),
        )


def load_dit(url: str, card: ModelCard, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> DiT:
    """The DiT alone of the checkpoint folder `url`, in evaluation mode."""
    location = storage.join(url, DIT_WEIGHTS)
    with torch.device("meta"):
        dit = DiT(dit_config_of(card, storage.join(url, CARD)))
    adopt(dit, read_weights(location), location)
    return dit.to(device=device, dtype=dtype).eval()


def dit_config_of(card: ModelCard, source: str = CARD) -> DiTConfig:
    """The card's DiT configuration as a dataclass; UserError for a field this version does not know."""
    try:
        return DiTConfig(**card.dit)
    except (TypeError, ValueError) as wrong:
        raise UserError(f"{source}: the card's dit configuration does not fit this version: {wrong}") from wrong


def pyramid_of(card: ModelCard) -> Pyramid:
    """The card's spatial pyramid as a dataclass; UserError for a field this version does not know."""
    try:
        return Pyramid(**card.pyramid)
    except (TypeError, ValueError) as wrong:
        raise UserError(f"{CARD}: the card's pyramid does not fit this version: {wrong}") from wrong


def check_files(url: str, card: ModelCard) -> None:
    """Raise a UserError that names the first file that is missing or has another length than the card says."""
    for file, size in card.files.items():
        location = storage.join(url, file)
        if not storage.exists(location):
            raise UserError(f"{location}: missing, {CARD} lists it; copy the folder again")
        if (found := storage.size(location)) != size:
            raise UserError(f"{location}: {found} bytes, {CARD} says {size}; copy the folder again")


def copy_folder(source: str, target: str) -> None:
    """Copy every file below one URL to another; UserError when there is none."""
    with _local_folder(source) as folder:
        if not any(folder.rglob("*")):
            raise UserError(f"{source}: no such folder, or it is empty")
        storage.sync_up(folder, target)


def git_revision() -> str:
    """Commit of the checkout that this code runs from; empty outside one."""
    if which("git") is None:
        return ""
    here = Path(__file__).resolve()
    # The second name fails when the repository found is someone else's, with this package merely installed inside.
    asked = ["git", "-C", str(here.parent), "rev-parse", "HEAD", f"HEAD:./{here.name}"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    return answer.stdout.split()[0] if answer.returncode == 0 else ""


def _weight_files(url: str) -> Iterator[str]:
    for part in ("dit", "vae", "text"):
        for file in storage.list_files(storage.join(url, part)):
            yield storage.relative(url, file)


@contextmanager
def _local_folder(url: str) -> Iterator[Path]:
    path = storage.local_path(url)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="rayramid-model-") as folder:
        storage.sync_down(url, Path(folder))
        yield Path(folder)
