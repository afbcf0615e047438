"""Loading a version of a model into a worker."""

import gc
from concurrent.futures import ThreadPoolExecutor

import torch

from rayramid.models import storage
from rayramid.models.card import load_card
from rayramid.models.checkpoint import load_dit, pyramid_of
from rayramid.models.errors import UserError
from rayramid.models.lora import merge_adapter
from rayramid.models.sampler import Sampler
from rayramid.models.vae.io import load_vae
from rayramid.serve.admission import Capacity
from rayramid.serve.attempt import Embed
from rayramid.serve.calibration import calibrate
from rayramid.serve.releases import Version
from rayramid.serve.safety import Judge
from rayramid.serve.spec import SamplerOptions
from rayramid.serve.store import Store
from rayramid.serve.tracing import Traces
from rayramid.serve.worker import Worker
from rayramid.serve.workers import GoneError


def load_worker(
    version: Version,
    store: Store,
    embed: Embed,
    options: SamplerOptions,
    judge: Judge | None,
    thread: ThreadPoolExecutor,
    traces: Traces | None = None,
) -> tuple[Worker, Capacity]:
    """A worker that has made a short video, so that no request meets a cold one, and what it can do.

    Args:
        version: of the model that it loads.
        store: where jobs live.
        embed: gives text embeddings of that model's encoders, on the device of the options.
        options: of this replica.
        judge: of frames, if there is one.
        thread: where steps are made.
        traces: of attempts.

    Raises:
        GoneError: where the version was, there is another one now, or none.
    """
    try:
        if Version.at(version.folder, version.adapter) != version:
            raise GoneError
    except UserError as error:
        raise GoneError from error
    # A worker that was let go of before is in reference cycles; its memory shall be free first.
    gc.collect()
    torch.cuda.empty_cache()
    device, dtype = device_of(options), getattr(torch, options.dtype)
    card = load_card(version.folder)
    dit = load_dit(version.folder, card)
    if version.adapter is not None:
        merge_adapter(dit, version.adapter)
    sampler = Sampler(dit.to(device, dtype), pyramid_of(card))
    vae = load_vae(storage.join(version.folder, "vae")).to(device, dtype)
    capacity = calibrate(sampler, vae, card, options)
    worker = Worker(
        store,
        sampler,
        vae,
        embed,
        version=version.id,
        tokens_per_step=options.tokens_per_step,
        cache_tokens=capacity.cache_tokens,
        judge=judge,
        traces=traces,
        thread=thread,
    )
    return worker, capacity


def device_of(options: SamplerOptions) -> str:
    """Torch's name of the device that a replica works on."""
    return options.device or ("cuda" if options.num_gpus else "cpu")
