"""How a replica holds its models, as its options say."""

import logging
import os
from threading import Thread

import torch

from rayramid.models import storage
from rayramid.models.crew import Crew
from rayramid.models.precision import sampling_dtype
from rayramid.models.transformer import Holding
from rayramid.models.vae.io import load_vae
from rayramid.models.vae.model import CausalVAE
from rayramid.serve.spec import SamplerOptions

log = logging.getLogger(__name__)


def holding_of(options: SamplerOptions) -> Holding:
    """How each rank of a replica holds a transformer."""
    return Holding(
        device=options.device or ("cuda" if options.num_gpus else "cpu"),
        dtype=getattr(torch, options.dtype),
        int8=options.weights == "int8",
        offload="blocks" in options.offload,
    )


def begin_crew(options: SamplerOptions) -> Crew | None:
    """The processes that share a replica's forwards, which end together; None where one makes them alone."""
    if options.ranks == 1:
        return None
    crew = Crew(holding_of(options), options.ranks)
    Thread(target=_end_with_a_rank, args=(crew,), daemon=True).start()
    return crew


def load_decoder(folder: str, options: SamplerOptions) -> CausalVAE:
    """The VAE of a model folder."""
    vae = load_vae(storage.join(folder, "vae"))
    if "vae" in options.offload:
        return vae.to("cpu", sampling_dtype("cpu"))
    holding = holding_of(options)
    return vae.to(holding.device, holding.dtype)


def _end_with_a_rank(crew: Crew) -> None:
    """Ends this process when a rank dies: Serve replaces a dead replica, and its videos go on from what is stored.

    At once, since the forward that lacks the rank may wait for it for ever.
    """
    crew.wait()
    log.error("a process that shares this replica's forwards died; the replica ends, to be replaced whole")
    os._exit(1)
