"""Jobs and stores for tests without a model, and a tiny seeded model folder."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from safetensors.torch import load
from torch import Tensor
from waiting import PATIENCE_S, until

from rayramid.models import storage
from rayramid.models.card import ModelCard
from rayramid.models.checkpoint import Model as LoadedModel
from rayramid.models.checkpoint import load_model
from rayramid.models.media.read import read_frames
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.session import Session, Unit
from rayramid.serve.acceptance import Acceptance
from rayramid.serve.access import Access
from rayramid.serve.broker import Broker
from rayramid.serve.catalogue import Catalogue
from rayramid.serve.embeddings import Embeddings
from rayramid.serve.endpoint import Endpoint
from rayramid.serve.gateway import create_app
from rayramid.serve.job import Job, Model, Standing, new_id
from rayramid.serve.keys import KeyRing
from rayramid.serve.new_videos import NOTHING, NewVideos
from rayramid.serve.reel import LATENT
from rayramid.serve.releases import Releases, Version
from rayramid.serve.remote import Remote
from rayramid.serve.rewriter import Rewriter
from rayramid.serve.safety import Judge
from rayramid.serve.spec import Limits, RemoteOptions
from rayramid.serve.store import Store
from rayramid.serve.tracing import Traces
from rayramid.serve.webhooks import Webhooks
from rayramid.serve.wire import CreateVideo
from rayramid.serve.worker import Worker


@pytest.fixture
def card() -> ModelCard:
    # Sizes are multiples of 64 pixels: 8 (VAE) x 2 (patch) x 4 (three levels).
    return ModelCard(
        preset="tiny",
        dit={
            "heads": 2,
            "head_dim": 16,
            "double_blocks": 1,
            "text_dim": 64,
            "pooled_dim": 64,
            "rope_axes": (4, 6, 6),
            "patch": 2,
            "frames_per_unit": 1,
        },
        pyramid={"levels": 3},
        fps=8.0,
        width=64,
        height=64,
        frames=17,
        steps=((1, 1, 1), (1, 1, 1)),
        guidance=3.0,
        video_guidance=2.0,
        negative_prompt="blurry",
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def s3_store(s3_bucket: str) -> Store:
    """A store in a bucket of moto's server."""
    return Store(s3_bucket)


@pytest.fixture
def new_job(card: ModelCard) -> Callable[..., Job]:
    """Makes jobs of the card's model."""

    def make(prompt: str = "a cat", owner: str = "me", **fields: object) -> Job:
        request = CreateVideo(prompt=prompt, **fields)
        return Acceptance(Limits()).creation(request, Model.of(card, None), new_id(), owner, image=False)

    return make


LIMITS = Limits(queue=2, seconds=30, pixels=256 * 256, upload_bytes=200_000)


@dataclass(frozen=True)
class Setting:
    """What a test says of its endpoint."""

    slots: int = 4
    limits: Limits = LIMITS
    cache_tokens: int = 100_000
    rewriter: Rewriter | None = None
    keys: KeyRing | None = None
    remote: RemoteOptions = NOTHING
    origins: tuple[str, ...] = ()
    prompts: Judge | None = None
    frames: Judge | None = None
    traces: Traces | None = None
    # Between tries of an event.
    delays_s: tuple[float, ...] = (0.05, 0.05, 0.05)


class LocalBroker(Broker):
    """A broker whose workers are always ready; `watchers` counts those who ever watched a job."""

    watchers = 0

    async def ready(self) -> None:
        """Nothing to wait for."""

    def events(self, job_id: str) -> AsyncGenerator[Standing, None]:
        self.watchers += 1
        return super().events(job_id)


class HeldWorker(Worker):
    """A worker that makes no video's unit `held_at` or a later one, so that a test finds videos still in the making."""

    held_at: float = math.inf

    def _step(self, sessions: Sequence[Session]) -> list[Unit]:
        free = [session for session in sessions if session.unit < self.held_at]
        if not free:
            time.sleep(0.005)
        return super()._step(free) if free else []


@dataclass
class Running:
    """An endpoint in this process: `http` calls the app, `url` is where a server runs it, if one does."""

    http: httpx.AsyncClient
    store: Store
    worker: HeldWorker
    broker: LocalBroker
    app: FastAPI
    url: str = ""

    async def create(self, status: int = 200, **fields: object) -> dict[str, Any]:
        response = await self.http.post("/v1/videos", json={"prompt": "a cat", **fields})
        assert response.status_code == status, response.text
        return response.json()

    async def ended(self, video_id: str) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                video = (await self.http.get(f"/v1/videos/{video_id}")).json()
                if video["status"] in ("completed", "failed"):
                    return video
                await asyncio.sleep(0.02)

    async def made(self, **fields: object) -> dict[str, Any]:
        """A video, completed."""
        video = await self.ended((await self.create(**fields))["id"])
        assert video["status"] == "completed", video
        return video

    async def content(self, video_id: str) -> bytes:
        response = await self.http.get(f"/v1/videos/{video_id}/content")
        assert response.status_code == 200, response.text
        return response.content

    def latents(self, video_id: str) -> Tensor:
        """A video's stored latents, normalised, [C, T, H, W]."""
        units = range(self.store.units(video_id))
        return torch.cat(
            [load(storage.read_bytes(self.store.latents(video_id, unit)))[LATENT] for unit in units], dim=1
        )

    async def units(self, video_id: str, count: int) -> None:
        """Return once so many units are stored."""
        await until(lambda: self.store.units(video_id) >= count)


@pytest.fixture(scope="session")
def loaded(model_folder: str) -> LoadedModel:
    return load_model(model_folder)


@pytest.fixture
def endpoint(loaded: LoadedModel, model_folder: str, store: Store) -> Callable[..., Any]:
    """Runs `scenario(endpoint)`.

    `generating=False` leaves the engine's loop out, so that jobs stay where they are; `server=True` also listens.
    """

    def run(
        scenario: Callable[[Running], Awaitable[Any]],
        *,
        generating: bool = True,
        server: bool = False,
        store: Store = store,
        **setting: Any,
    ) -> Any:
        async def main() -> Any:
            async with AsyncExitStack() as also:
                endpoint = await also.enter_async_context(running(loaded, model_folder, store, Setting(**setting)))
                if generating:
                    await also.enter_async_context(looping(endpoint.worker))
                if server:
                    endpoint.url = await also.enter_async_context(listening(endpoint.app))
                return await scenario(endpoint)

        return asyncio.run(main())

    return run


@asynccontextmanager
async def running(loaded: LoadedModel, folder: str, store: Store, setting: Setting) -> AsyncIterator[Running]:
    name, releases = loaded.card.preset, Releases(store.url)
    releases.follow_spec(name, version := Version.at(folder))
    worker = HeldWorker(
        store,
        Sampler(loaded.dit, loaded.pyramid),
        loaded.vae,
        Embeddings(loaded.text, 2**20).embed,
        version=version.id,
        tokens_per_step=10_000,
        cache_tokens=setting.cache_tokens,
        judge=setting.frames,
        traces=setting.traces,
    )
    limits, keys = setting.limits, setting.keys
    webhooks = Webhooks(store, keys, Remote(setting.remote), setting.delays_s) if keys else None
    broker = LocalBroker(
        store,
        lambda job, attempt: worker.run(job.id, attempt),
        workers=1,
        slots=setting.slots,
        queue_limit=limits.queue,
        webhooks=webhooks,
        traces=setting.traces,
    )
    await broker.recover()
    new = NewVideos(
        Catalogue([name], releases),
        store,
        broker,
        limits,
        setting.rewriter,
        setting.remote,
        setting.prompts,
        setting.traces,
    )
    app = create_app(
        new, Endpoint(store, broker, limits, setting.prompts), Access(keys, limits.per_key), setting.origins
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield Running(http, store, worker, broker, app)


@asynccontextmanager
async def looping(worker: HeldWorker) -> AsyncIterator[None]:
    loop = asyncio.create_task(worker.engine.run())
    try:
        yield
    finally:
        loop.cancel()
        await asyncio.wait((loop,))


@asynccontextmanager
async def listening(app: Any, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A real server on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=0, log_level="error", timeout_graceful_shutdown=1))
    # Signals are pytest's own.
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    (port,) = {socket.getsockname()[1] for each in server.servers for socket in each.sockets}
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await task


@pytest.fixture
def listen() -> Callable[..., Any]:
    """`async with listen(app, host)` runs any ASGI app on a real server."""
    return listening


@pytest.fixture
def frames_of(tmp_path: Path) -> Callable[[bytes], Any]:
    """Decodes an mp4 to frames [T, H, W, 3]."""

    def decode(data: bytes) -> Any:
        path = tmp_path / "decoded.mp4"
        path.write_bytes(data)
        return np.concatenate(list(read_frames(path)))

    return decode
