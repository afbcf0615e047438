"""The four processes of an endpoint as Ray Serve runs them: thin shells around the plain classes of this package.

    Gateway  →  Broker  →  Sampler  →  Text
       └───────────┴──────────┴─ the store

Only Sampler and Text import torch.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from rayramid.models import storage
from rayramid.models.card import load_card
from rayramid.serve.access import Access
from rayramid.serve.admission import Admission, Capacity
from rayramid.serve.broker import Broker
from rayramid.serve.endpoint import Endpoint
from rayramid.serve.gateway import create_app
from rayramid.serve.job import Job, Model, Progress, Standing
from rayramid.serve.keys import KeyRing
from rayramid.serve.new_videos import NewVideos
from rayramid.serve.remote import Remote
from rayramid.serve.rewriter import Rewriter
from rayramid.serve.safety import Judge
from rayramid.serve.scheduler import UnavailableError
from rayramid.serve.spec import KeyLimits, ServeSpec
from rayramid.serve.store import Store
from rayramid.serve.tracing import open_traces
from rayramid.serve.webhooks import Webhooks

if TYPE_CHECKING:
    from rayramid.models.text import TextEmbedding

# How long a gateway waits for a broker that died to be replaced.
PATIENCE_S = 30.0
RETRY_S = 0.2


class Text:
    """Embeds prompts."""

    def __init__(self, spec: ServeSpec) -> None:
        from rayramid.models.text import load_text
        from rayramid.serve.embeddings import Embeddings

        encoder = load_text(storage.join(spec.model, "text"), "cuda" if spec.text.num_gpus else "cpu")
        self._embeddings = Embeddings(encoder, spec.text.cache_mib * 2**20)

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
        from rayramid.serve.calibration import calibrate
        from rayramid.serve.worker import Worker

        options = spec.sampler
        if options.threads:
            torch.set_num_threads(options.threads)
        device = options.device or ("cuda" if options.num_gpus else "cpu")
        dtype = getattr(torch, options.dtype)

        async def embed(prompts: list[str]) -> "list[TextEmbedding]":
            embeddings = await text.embed.remote(prompts)
            return [TextEmbedding(each.tokens_LD.to(device), each.pooled_P.to(device)) for each in embeddings]

        sampler = StepSampler(load_dit(spec.model, model.card, device, dtype), pyramid_of(model.card))
        vae = load_vae(storage.join(spec.model, "vae")).to(device, dtype)
        # Before Serve calls this replica healthy, so that no request meets a cold one.
        self._capacity = calibrate(sampler, vae, model.card, options)
        self._worker = Worker(
            store_of(spec),
            sampler,
            vae,
            embed,
            version=model.version,
            tokens_per_step=options.tokens_per_step,
            cache_tokens=self._capacity.cache_tokens,
            judge=Judge(spec.safety.frames) if spec.safety.frames else None,
            traces=open_traces(spec.traces, "sampler"),
        )
        # Serve calls constructors on the event loop that requests run on.
        self._loop = asyncio.create_task(self._worker.engine.run())

    async def run(self, job_id: str, attempt: int) -> AsyncGenerator[Progress, None]:
        """Carry out an attempt at a job, saying how far it is."""
        async with aclosing(self._worker.run(job_id, attempt)) as told:
            async for progress in told:
                yield progress

    async def ready(self) -> Capacity:
        """What this replica can do; it can generate."""
        return self._capacity

    async def check_health(self) -> None:
        """Serve replaces this replica if its loop has ended."""
        if self._loop.done():
            self._loop.result()


class BrokerReplica:
    """The one broker of an endpoint."""

    def __init__(self, spec: ServeSpec, sampler: DeploymentHandle) -> None:
        self._sampler = sampler
        self._broker = Broker(
            store_of(spec),
            self._dispatch,
            workers=spec.sampler.replicas,
            slots=spec.sampler.max_sessions,
            queue_limit=spec.limits.queue,
            webhooks=webhooks_of(spec),
            traces=open_traces(spec.traces, "broker"),
        )
        self._recovered = asyncio.create_task(self._broker.recover())
        self._learned = asyncio.create_task(self._learn())

    async def _learn(self) -> None:
        self._broker.know(await self._sampler.ready.remote())

    async def _dispatch(self, job_id: str, attempt: int) -> AsyncGenerator[Progress, None]:
        async with aclosing(_told(self._sampler.run, job_id, attempt)) as told:
            async for progress in told:
                yield progress

    async def submit(self, job: Job, limits: KeyLimits) -> Admission:
        """Admit a job."""
        await self._recovered
        return await self._broker.submit(job, limits)

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        await self._recovered
        await self._broker.cancel(job_id)

    async def delete(self, job_id: str) -> None:
        """Forget a job."""
        await self._recovered
        await self._broker.delete(job_id)

    async def events(self, job_id: str) -> AsyncGenerator[Standing, None]:
        """Where a job stands."""
        await self._recovered
        async with aclosing(self._broker.events(job_id)) as told:
            async for standing in told:
                yield standing

    async def drain(self) -> None:
        """Begin nothing more, and return when every running job has left off at a unit's edge."""
        await self._recovered
        await self._broker.drain()

    async def ready(self) -> None:
        """Return once a sampler answers."""
        await self._recovered
        await self._sampler.ready.remote()


class Gateway:
    """Answers HTTP; any number of them may run."""

    def __init__(self, spec: ServeSpec, model: Model, broker: DeploymentHandle) -> None:
        rewriter = Rewriter(spec.rewriter) if spec.rewriter else None
        judge = Judge(spec.safety.prompts) if spec.safety.prompts else None
        store, scheduler = store_of(spec), RemoteBroker(broker)
        traces = open_traces(spec.traces, "gateway")
        new = NewVideos(model, store, scheduler, spec.limits, rewriter, spec.remote, judge, traces)
        ring = KeyRing(spec.key_ring) if spec.key_ring else None
        access = Access(ring, spec.limits.per_key, spec.gateways)
        self._app = create_app(new, Endpoint(store, scheduler, spec.limits, judge), access, spec.origins)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Ray Serve calls to get the app of this replica."""
        return self._app


class RemoteBroker:
    """The broker behind its handle; one that died is asked again when Serve has started another."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def submit(self, job: Job, limits: KeyLimits) -> Admission:
        """Admit a job."""
        return await self._ask(lambda: self._handle.submit.remote(job, limits))

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        await self._ask(lambda: self._handle.cancel.remote(job_id))

    async def delete(self, job_id: str) -> None:
        """Forget a job."""
        await self._ask(lambda: self._handle.delete.remote(job_id))

    async def events(self, job_id: str) -> AsyncGenerator[Standing, None]:
        """Where a job stands."""
        try:
            async with aclosing(_told(self._handle.events, job_id)) as told:
                async for standing in told:
                    yield standing
        except RayActorError as error:
            raise UnavailableError from error

    async def ready(self) -> None:
        """Return once a sampler answers."""
        await self._ask(self._handle.ready.remote)

    async def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        return await question()
                    except RayActorError:
                        await asyncio.sleep(RETRY_S)
        except TimeoutError as error:
            raise UnavailableError from error


async def _told(method: DeploymentHandle, *arguments: object) -> AsyncGenerator[Any, None]:
    """What a generator of another deployment yields; closing this one ends it there."""
    told = method.options(stream=True).remote(*arguments)
    try:
        async for each in told:
            yield each
    except (asyncio.CancelledError, GeneratorExit):
        told.cancel()
        raise


def model_of(spec: ServeSpec) -> Model:
    """What the model folder says about itself; UserError if it is none."""
    return Model.of(load_card(spec.model), spec.name)


def webhooks_of(spec: ServeSpec) -> Webhooks | None:
    """What delivers events, if users may name URLs for them."""
    if not spec.remote.webhooks or spec.key_ring is None:
        return None
    return Webhooks(store_of(spec), KeyRing(spec.key_ring), Remote(spec.remote))


def store_of(spec: ServeSpec) -> Store:
    """Where the endpoint's jobs live."""
    return Store(
        spec.store,
        keep_s=spec.keep_hours * 3600 if spec.keep_hours else None,
        presign_s=spec.presigned_minutes * 60 if spec.presigned_minutes else None,
    )
