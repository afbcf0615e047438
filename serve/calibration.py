"""What a sampler's machine can do: measured on a short video, which also warms everything up."""

import os
import time

import torch

from rayramid.models.brief import Brief, write_brief
from rayramid.models.card import VAE_STRIDE, ModelCard
from rayramid.models.memory import BF16, cache_bytes
from rayramid.models.render import Projector, request_of
from rayramid.models.sampler import Sampler
from rayramid.models.text import TextEmbedding
from rayramid.models.vae.model import CausalVAE
from rayramid.serve.admission import Capacity
from rayramid.serve.spec import SamplerOptions

TEXT_TOKENS = 16
USABLE = 0.8


def calibrate(sampler: Sampler, vae: CausalVAE, card: ModelCard, options: SamplerOptions) -> Capacity:
    """Make a short video of the model's own size twice, so that the second one meets warm caches.

    Args:
        sampler: with the transformer.
        vae: decodes what is made.
        card: of the model.
        options: of this replica.
    """
    two_units = 1 + VAE_STRIDE * (card.frames_per_unit or 1)
    brief = write_brief(card, "", seconds=two_units / card.fps, steps=1)
    _make(sampler, vae, brief)
    started = time.monotonic()
    tokens = _make(sampler, vae, brief)
    seconds = time.monotonic() - started
    parameter = next(sampler.dit.parameters())
    per_token = cache_bytes(sampler.dit.config, 1) * parameter.element_size() // BF16
    # Ranks have their own heads' alone; each GPU is one rank's, and the host's memory is that of all.
    sharing = options.ranks if parameter.device.type == "cuda" else 1
    return Capacity(_room(options, parameter.device) * sharing // per_token, tokens / seconds)


def _make(sampler: Sampler, vae: CausalVAE, brief: Brief) -> int:
    """Tokens that went through the transformer."""
    config = sampler.dit.config
    device = next(sampler.dit.parameters()).device
    text = TextEmbedding(
        torch.zeros(TEXT_TOKENS, config.text_dim, device=device), torch.zeros(config.pooled_dim, device=device)
    )
    session = sampler.start(request_of(brief, {0: text}, text))
    projector = Projector(vae, brief)
    tokens = 0
    while not session.done:
        tokens += session.next_tokens
        for unit in sampler.step([session]):
            projector.frames(unit.latent_CTHW)
    return tokens


def _room(options: SamplerOptions, device: torch.device) -> int:
    """Bytes for keys and values of one model's videos."""
    if options.cache_gib is not None:
        room = int(options.cache_gib * 2**30)
    elif device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        room = int(USABLE * free)
    else:
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 // options.most_replicas
    return room // options.models
