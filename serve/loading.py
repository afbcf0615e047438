"""Loading a version of a model into a worker."""

import gc
from concurrent.futures import ThreadPoolExecutor

import torch

from rayramid.models.card import load_card
from rayramid.models.checkpoint import pyramid_of
from rayramid.models.crew import Crew
from rayramid.models.errors import UserError
from rayramid.models.sampler import Sampler
from rayramid.serve.admission import Capacity
from rayramid.serve.attempt import Embed
from rayramid.serve.calibration import calibrate
from rayramid.serve.holding import holding_of, load_decoder
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
    crew: Crew | None,
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
        crew: that makes its forwards, if it is not this process alone.
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
    card = load_card(version.folder)
    load = crew.load if crew else holding_of(options).load
    sampler = Sampler(load(version.folder, card, version.adapter), pyramid_of(card))
    vae = load_decoder(version.folder, options)
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
