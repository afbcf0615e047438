"""The four processes of an endpoint as Ray Serve runs them: thin shells around the plain classes of this package.

    Gateway  →  Broker  →  Sampler  →  Text
       └───────────┴──────────┴─ the store

Only Sampler and Text import torch.
"""

import asyncio
from typing import TYPE_CHECKING

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from rayramid.models import storage
from rayramid.models.card import load_card
from rayramid.serve.broker import Admission, Broker
from rayramid.serve.gateway import create_app
from rayramid.serve.job import Job, Model
from rayramid.serve.spec import ServeSpec
from rayramid.serve.store import Store

if TYPE_CHECKING:
    from rayramid.models.text import TextEmbedding


class Text:
    """Embeds prompts."""

    def __init__(self, spec: ServeSpec) -> None:
        from rayramid.models.text import load_text
        from rayramid.serve.embeddings import Embeddings

        encoder = load_text(storage.join(spec.model, "text"), "cuda" if spec.text.num_gpus else "cpu")
        self._embeddings = Embeddings(encoder, spec.text.cached_prompts)

    async def embed(self, prompts: list[str]) -> "list[TextEmbedding]":
        """One embedding per prompt."""
        return await self._embeddings.embed(prompts)


class Sampler:
    """Generates: holds the transformer and the VAE, and runs the engine's loop."""

    def __init__(self, spec: ServeSpec, model: Model, text: DeploymentHandle) -> None:
        import torch

        from rayramid.models.checkpoint import load_dit, pyramid_of
        from rayramid.models.sampler import Sampler as StepSampler
        from rayramid.models.text import TextEmbedding
        from rayramid.models.vae.io import load_vae
        from rayramid.serve.worker import Worker

        options = spec.sampler
        if options.threads:
            torch.set_num_threads(options.threads)
        device = options.device or ("cuda" if options.num_gpus else "cpu")
        dtype = getattr(torch, options.dtype)

        async def embed(prompts: list[str]) -> "list[TextEmbedding]":
            embeddings = await text.embed.remote(prompts)
            return [TextEmbedding(each.tokens_LD.to(device), each.pooled_P.to(device)) for each in embeddings]

        self._worker = Worker(
            Store(spec.store),
            StepSampler(load_dit(spec.model, model.card, device, dtype), pyramid_of(model.card)),
            load_vae(storage.join(spec.model, "vae")).to(device, dtype),
            embed,
            version=model.version,
            tokens_per_step=options.tokens_per_step,
        )
        # Serve calls constructors on the event loop that requests run on.
        self._loop = asyncio.create_task(self._worker.engine.run())

    async def run(self, job_id: str, attempt: int) -> None:
        """Carry out an attempt at a job."""
        await self._worker.run(job_id, attempt)

    async def ready(self) -> None:
        """Return if this replica can generate."""

    async def check_health(self) -> None:
        """Serve replaces this replica if its loop has ended."""
        if self._loop.done():
            self._loop.result()


class BrokerReplica:
    """The one broker of an endpoint."""

    def __init__(self, spec: ServeSpec, sampler: DeploymentHandle) -> None:
        self._sampler = sampler
        self._broker = Broker(
            Store(spec.store),
            self._dispatch,
            slots=spec.sampler.replicas * spec.sampler.max_sessions,
            queue_limit=spec.limits.queue,
        )
        self._recovered = asyncio.create_task(self._broker.recover())

    async def _dispatch(self, job_id: str, attempt: int) -> None:
        response = self._sampler.run.remote(job_id, attempt)
        try:
            await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    async def submit(self, job: Job) -> Admission:
        """Admit a job."""
        await self._recovered
        return await self._broker.submit(job)

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        await self._recovered
        await self._broker.cancel(job_id)

    async def ready(self) -> None:
        """Return once a sampler answers."""
        await self._recovered
        await self._sampler.ready.remote()


class Gateway:
    """Answers HTTP; any number of them may run."""

    def __init__(self, spec: ServeSpec, model: Model, broker: DeploymentHandle) -> None:
        self._app = create_app(model, Store(spec.store), RemoteBroker(broker), spec.limits)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Ray Serve calls to get the app of this replica."""
        return self._app


class RemoteBroker:
    """The broker behind its handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def submit(self, job: Job) -> Admission:
        """Admit a job."""
        return await self._handle.submit.remote(job)

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        await self._handle.cancel.remote(job_id)

    async def ready(self) -> None:
        """Return once a sampler answers."""
        await self._handle.ready.remote()


def model_of(spec: ServeSpec) -> Model:
    """What the model folder says about itself; UserError if it is none."""
    return Model.of(load_card(spec.model), spec.name)
