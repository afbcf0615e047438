"""Released models to checkpoint folders and back: what `rayramid weights import` and `export` do.

A release is a folder of model folders: `diffusion_transformer_<variant>`, `causal_video_vae`, text encoders and
tokenizers. A single DiT folder, say SD3-medium's `transformer`, gives a checkpoint of DiT weights alone.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

import torch

from rayramid.models import storage
from rayramid.models.card import ModelCard, load_card
from rayramid.models.checkpoint import copy_folder, load_dit, save_model
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.importers import vae as vae_layout
from rayramid.models.importers.dit import (
    config_from_published,
    dit_from_published,
    dit_to_published,
    initial_weights,
)
from rayramid.models.importers.published import CONFIG, read_config, read_published, weights_file, write_published
from rayramid.models.presets import PRESETS
from rayramid.models.pyramid import Pyramid
from rayramid.models.vae.io import load_vae
from rayramid.models.vae.model import CausalVAE
from rayramid.models.weights import INDEX_SUFFIX, read_entries

DIT_FOLDER = "diffusion_transformer"
VAE_FOLDER = "causal_video_vae"
SD3_TEXT = {
    "clip_l": "text_encoder",
    "clip_l_tokenizer": "tokenizer",
    "clip_g": "text_encoder_2",
    "clip_g_tokenizer": "tokenizer_2",
    "t5": "text_encoder_3",
    "t5_tokenizer": "tokenizer_3",
}
FLUX_TEXT = {
    "clip_l": "text_encoder",
    "clip_l_tokenizer": "tokenizer",
    "t5": "text_encoder_2",
    "t5_tokenizer": "tokenizer_2",
}


@dataclasses.dataclass(frozen=True)
class Defaults:
    """Size and length that a released variant was trained for."""

    width: int
    height: int
    frames: int


VARIANTS = {"384p": Defaults(640, 384, 121), "768p": Defaults(1280, 768, 241), "image": Defaults(1024, 1024, 1)}
FPS = 24.0
STEPS, VIDEO_STEPS = 20, 10
GUIDANCE, VIDEO_GUIDANCE = 7.0, 5.0
PROMPT_SUFFIX = ", hyper quality, Ultra HD, 8K"
NEGATIVE_PROMPT = (
    "cartoon style, worst quality, low quality, blurry, absolute black, absolute white, low res, extra limbs, "
    "extra digits, misplaced objects, mutated anatomy, monochrome, horror"
)


@dataclasses.dataclass(frozen=True)
class Release:
    """One released DiT, by itself or with what is around it.

    Attributes:
        variant: its name, such as `768p`; empty for a DiT by itself.
        folder: URL of the DiT.
        around: URL of the release that has VAE and text encoders too; None for a DiT by itself.
    """

    variant: str
    folder: str
    around: str | None

    def card(self) -> ModelCard:
        """What the released model is (`conditioning: official`); reads no weights, so fingerprints are empty."""
        config = config_from_published(read_config(self.folder), storage.join(self.folder, CONFIG))
        defaults, levels = VARIANTS.get(self.variant, VARIANTS["384p"]), config.levels
        return ModelCard(
            preset=preset_of(config),
            dit=dataclasses.asdict(config),
            pyramid=dataclasses.asdict(Pyramid(levels=levels, schedule="official")),
            fps=FPS,
            width=defaults.width,
            height=defaults.height,
            frames=defaults.frames,
            steps=((STEPS,) * levels, (VIDEO_STEPS,) * levels),
            guidance=GUIDANCE,
            video_guidance=VIDEO_GUIDANCE,
            prompt_suffix=PROMPT_SUFFIX,
            negative_prompt=NEGATIVE_PROMPT,
        )

    def dit(self) -> DiT:
        """The DiT that computes what the released one does."""
        published, weights = read_published(self.folder)
        location = storage.join(self.folder, CONFIG)
        return dit_from_published(published, weights, weights_file(self.folder), config_source=location)

    def vae(self) -> CausalVAE | None:
        """The VAE around the DiT."""
        if self.around is None:
            return None
        folder, flux = storage.join(self.around, VAE_FOLDER), bool(self.card().dit["single_blocks"])
        published, weights = read_published(folder)
        config = vae_layout.config_from(published, "flux" if flux else "mmdit", storage.join(folder, CONFIG))
        with torch.device("meta"):
            vae = CausalVAE(config)
        vae.load_state_dict(vae_layout.from_published(weights, config, weights_file(folder)), assign=True)
        return vae.eval()


def open_release(source: str, variant: str | None = None) -> Release:
    """The release, or the DiT's folder, at the path or URL `source`.

    Args:
        source: of a release, or of one DiT's folder.
        variant: which DiT of a release, such as `768p`; needed when it holds several.

    Raises:
        UserError: no such folder or variant.
    """
    if storage.exists(storage.join(source, CONFIG)):
        return Release("", source, None)
    variants = dict(_variants(source))
    name = _choose(source, variants, variant)
    return Release(name, variants[name], source)


def import_weights(
    source: str,
    target: str,
    *,
    variant: str | None = None,
    conditioning: Literal["official", "shared_context"] = "official",
) -> ModelCard:
    """Write the checkpoint folder `target` from released weights.

    Args:
        source: path or URL of a release, or of one DiT's folder.
        target: path or URL of the checkpoint folder.
        variant: which DiT of a release, such as `768p`; needed when it holds several.
        conditioning: `official` reproduces the released model bit for bit; `shared_context` makes initial weights for
            training.

    Raises:
        UserError: no such folder or variant; a file truncated or of another model; a key missing, surplus or of a
            wrong shape. Names the file and the key.
    """
    release = open_release(source, variant)
    card, dit = release.card(), release.dit()
    if conditioning != "official":
        dit = initial_weights(dit, dataclasses.replace(dit.config, conditioning=conditioning))
        pyramid = Pyramid(**card.pyramid | {"schedule": "uniform"})
        card = dataclasses.replace(card, dit=dataclasses.asdict(dit.config), pyramid=dataclasses.asdict(pyramid))
    text = None if release.around is None else _find_text(release.around, dit.config)
    save_model(target, card, dit, release.vae(), text)
    return load_card(target)


def export_weights(source: str, target: str) -> None:
    """Write the checkpoint folder `source` in the released layout to `target`; weights are the same bits.

    Raises:
        UserError: `source` is not a checkpoint, or the published code can't run its model.
    """
    card = load_card(source)
    dit = load_dit(source, card)
    config, weights = dit_to_published(dit)
    write_published(storage.join(target, f"{DIT_FOLDER}_{_variant_of(card)}"), config, weights)
    if any(file.startswith("vae/") for file in card.files):
        vae = load_vae(storage.join(source, "vae"))
        vae_config, vae_weights = vae_layout.config_to(vae.config), vae_layout.to_published(vae.state_dict())
        write_published(storage.join(target, VAE_FOLDER), vae_config, vae_weights)
    for ours, theirs in _text_folders(dit.config).items():
        if any(file.startswith(f"text/{ours}/") for file in card.files):
            copy_folder(storage.join(source, "text", ours), storage.join(target, theirs))


def preset_of(config: DiTConfig) -> str:
    """The preset with the blocks and widths of `config`; `custom` if there is none."""
    for name, known in PRESETS.items():
        if config == dataclasses.replace(
            known, conditioning=config.conditioning, causal=config.causal, levels=config.levels
        ):
            return name
    return "custom"


def _variants(source: str) -> Iterator[tuple[str, str]]:
    """Variant and URL of every DiT folder of a release."""
    for file in storage.list_files(source, suffix=f"/{CONFIG}"):
        folder, _, rest = storage.relative(source, file).partition("/")
        if folder.startswith(DIT_FOLDER) and rest == CONFIG:
            yield folder.removeprefix(DIT_FOLDER).lstrip("_"), storage.join(source, folder)


def _choose(source: str, variants: Mapping[str, str], wanted: str | None) -> str:
    if not variants:
        raise UserError(f"{source}: neither a DiT folder ({CONFIG}) nor a release ({DIT_FOLDER}_*/{CONFIG})")
    if wanted is None and len(variants) == 1:
        return next(iter(variants))
    if wanted is None or wanted not in variants:
        refused = "" if wanted is None else f", {wanted} is none of them"
        raise UserError(f"{source}: holds the variants {', '.join(variants)}{refused}; choose one with --variant")
    return wanted


def _variant_of(card: ModelCard) -> str:
    sizes = {(known.width, known.height): name for name, known in VARIANTS.items()}
    return sizes.get((card.width, card.height), f"{card.height}p")


def _text_folders(config: DiTConfig) -> dict[str, str]:
    return FLUX_TEXT if config.single_blocks else SD3_TEXT


def _find_text(release: str, config: DiTConfig) -> dict[str, str]:
    """URLs of the text encoders and tokenizers by our names; UserError for one missing, or weights that are cut off."""
    folders = {ours: storage.join(release, theirs) for ours, theirs in _text_folders(config).items()}
    for folder in folders.values():
        files = list(storage.list_files(folder))
        if not files:
            raise UserError(f"{folder}: no such folder, or it is empty")
        for file in files:
            if file.endswith((".safetensors", INDEX_SUFFIX)):
                read_entries(file)
    return folders
