"""The four processes of an endpoint as Ray Serve runs them: thin shells around the plain classes of this package.

    Gateway  →  Broker  →  Sampler  →  Text
       └───────────┴──────────┴─ the store

Only Sampler and Text import torch.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from rayramid.models import storage
from rayramid.serve.access import Access
from rayramid.serve.admission import Admission, Capacity
from rayramid.serve.autoscaling import JOBS, SECONDS
from rayramid.serve.broker import Broker
from rayramid.serve.catalogue import Catalogue
from rayramid.serve.endpoint import Endpoint
from rayramid.serve.estimate import Demand
from rayramid.serve.gateway import create_app
from rayramid.serve.handles import RemoteBroker, told_by
from rayramid.serve.job import Job, Progress, Standing
from rayramid.serve.keys import KeyRing
from rayramid.serve.new_videos import NewVideos
from rayramid.serve.releases import Releases
from rayramid.serve.remote import Remote
from rayramid.serve.rewriter import Rewriter
from rayramid.serve.safety import Judge
from rayramid.serve.spec import KeyLimits, ServeSpec
from rayramid.serve.staffing import Staffing
from rayramid.serve.store import Store
from rayramid.serve.tracing import open_traces
from rayramid.serve.webhooks import Webhooks

if TYPE_CHECKING:
    from rayramid.models.text import TextEmbedding

log = logging.getLogger(__name__)


class Text:
    """Embeds prompts."""

    def __init__(self, spec: ServeSpec, names: Sequence[str]) -> None:
        from rayramid.models.text import load_text
        from rayramid.serve.encoders import Encoders

        device = "cuda" if spec.text.num_gpus else "cpu"
        self._encoders = Encoders(
            spec.text.encoders,
            spec.text.cache_mib * 2**20,
            lambda folder: load_text(storage.join(folder, "text"), device),
        )
        self._encoders.open(Releases(spec.store).stable_now(names[0]).folder)

    async def embed(self, folder: str, prompts: list[str]) -> "list[TextEmbedding]":
        """One embedding per prompt, by the encoders of a model folder."""
        return await self._encoders.embed(folder, prompts)


class Sampler:
    """Generates: holds transformers and VAEs, and runs the loops of their engines."""

    def __init__(self, spec: ServeSpec, names: Sequence[str], text: DeploymentHandle) -> None:
        from rayramid.models.cpu import compute_on_cpu
        from rayramid.models.text import TextEmbedding
        from rayramid.serve.holding import begin_crew, holding_of
        from rayramid.serve.loading import load_worker
        from rayramid.serve.workers import GoneError, Workers

        options, store = spec.sampler, store_of(spec)
        compute_on_cpu(options.threads)
        device = holding_of(options).device
        crew = begin_crew(options)
        judge = Judge(spec.safety.frames) if spec.safety.frames else None
        thread = ThreadPoolExecutor(1, "step")

        async def embed(folder: str, prompts: list[str]) -> "list[TextEmbedding]":
            embeddings = await text.embed.remote(folder, prompts)
            return [TextEmbedding(each.tokens_LD.to(device), each.pooled_P.to(device)) for each in embeddings]

        traces = open_traces(spec.traces, "sampler")
        self._workers = Workers(
            store,
            Releases(spec.store),
            options.models,
            lambda version: load_worker(
                version, store, partial(embed, version.folder), options, crew, judge, thread, traces
            ),
        )

        # What is loaded Workers knows; this tells Serve's router where jobs of a version had better go.
        @serve.multiplexed(max_num_models_per_replica=options.models)
        async def announce(version: str) -> str:
            return version

        self._announce = announce
        # Which has this deployment's handle, so it comes later.
        self._broker: DeploymentHandle | None = None
        # Before Serve calls this replica healthy, so that no request meets a cold one. Serve calls constructors on the
        # event loop that requests run on.
        self._default = Releases(spec.store).stable_now(names[0])
        self._capacity: Capacity | None = None
        try:
            self._capacity = self._workers.open(self._default)
        except GoneError:
            log.error("the default model is not there any more", extra={"folder": self._default.folder})

    async def run(self, job: Job, attempt: int) -> AsyncGenerator[Capacity | Progress, None]:
        """Carry out an attempt at a job: what this replica can do with its model, and then how far it is."""
        async with aclosing(self._workers.run(job, attempt)) as told:
            async for each in told:
                if isinstance(each, Capacity):
                    await self._announce(job.model_version)
                yield each

    async def ready(self) -> tuple[str, Capacity | None]:
        """The version of the default model that this replica began with, and what it can do; it can generate."""
        return self._default.id, self._capacity

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What there is to do for all replicas; Serve's controller gives it to its policy."""
        if self._broker is None:
            self._broker = serve.get_deployment_handle("Broker", serve.get_replica_context().app_name)
        demand: Demand = await self._broker.demand.remote()
        return {SECONDS: demand.seconds, JOBS: demand.jobs}

    async def check_health(self) -> None:
        """Serve replaces this replica if a loop has ended."""
        self._workers.check()


class BrokerReplica:
    """The one broker of an endpoint."""

    def __init__(self, spec: ServeSpec, sampler: DeploymentHandle) -> None:
        self._sampler = sampler
        self._broker = Broker(
            store_of(spec),
            self._dispatch,
            workers=0 if spec.sampler.autoscaling else spec.sampler.replicas,
            slots=spec.sampler.max_sessions,
            queue_limit=spec.limits.queue,
            webhooks=webhooks_of(spec),
            traces=open_traces(spec.traces, "broker"),
        )
        self._recovered = asyncio.create_task(self._broker.recover())
        self._scaled = spec.sampler.autoscaling is not None
        staffing = Staffing(serve.get_replica_context().app_name, "Sampler", self._broker, self._learn)
        self._learned = asyncio.create_task(staffing.run() if self._scaled else self._learn())

    async def _learn(self) -> None:
        version, capacity = await self._sampler.ready.remote()
        if capacity is not None:
            self._broker.know(version, capacity)

    async def _dispatch(self, job: Job, attempt: int) -> AsyncGenerator[Progress, None]:
        # Serve prefers a replica that has the version.
        run = self._sampler.run.options(multiplexed_model_id=job.model_version)
        async with aclosing(told_by(run, job, attempt)) as told:
            async for each in told:
                if isinstance(each, Capacity):
                    self._broker.know(job.model_version, each)
                else:
                    yield each

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

    async def demand(self) -> Demand:
        """What there is to do."""
        await self._recovered
        return self._broker.demand()

    async def ready(self) -> None:
        """Return once a sampler answers, or would be started for a job."""
        await self._recovered
        if not self._scaled:
            await self._sampler.ready.remote()


class Gateway:
    """Answers HTTP; any number of them may run."""

    def __init__(self, spec: ServeSpec, names: Sequence[str], broker: DeploymentHandle) -> None:
        rewriter = Rewriter(spec.rewriter) if spec.rewriter else None
        judge = Judge(spec.safety.prompts) if spec.safety.prompts else None
        store, scheduler = store_of(spec), RemoteBroker(broker)
        catalogue, traces = Catalogue(names, Releases(spec.store)), open_traces(spec.traces, "gateway")
        new = NewVideos(catalogue, store, scheduler, spec.limits, rewriter, spec.remote, judge, traces)
        ring = KeyRing(spec.key_ring) if spec.key_ring else None
        access = Access(ring, spec.limits.per_key, spec.gateways)
        self._app = create_app(new, Endpoint(store, scheduler, spec.limits, judge), access, spec.origins)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Ray Serve calls to get the app of this replica."""
        return self._app


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
