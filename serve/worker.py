"""One replica's work: any number of attempts at a time, all in one engine."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from rayramid.models.sampler import Sampler
from rayramid.models.sampling.session import Session, Unit
from rayramid.models.vae.model import CausalVAE
from rayramid.serve.attempt import Attempt, Embed, Tools
from rayramid.serve.engine import Engine
from rayramid.serve.job import Progress
from rayramid.serve.memory import Memory
from rayramid.serve.metrics import WorkerMetrics
from rayramid.serve.safety import Judge
from rayramid.serve.store import Store
from rayramid.serve.tracing import Traces
from rayramid.serve.wire import VideoError

log = logging.getLogger(__name__)


class Worker:
    """Carries out attempts.

    Args:
        store: where jobs live.
        sampler: steps sessions.
        vae: decodes their units.
        embed: gives text embeddings for prompts.
        version: of the model; jobs of another one fail.
        tokens_per_step: tokens that one forward may hold.
        cache_tokens: whose keys and values there is memory for; videos wait for their share of it.
        judge: of frames, if there is one.
        traces: of attempts.
        thread: where steps are made; workers that share it take turns.
    """

    def __init__(
        self,
        store: Store,
        sampler: Sampler,
        vae: CausalVAE,
        embed: Embed,
        *,
        version: str,
        tokens_per_step: int,
        cache_tokens: int,
        judge: Judge | None = None,
        traces: Traces | None = None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self._store = store
        self._version = version
        self._sampler = sampler
        self.engine = Engine(self._step, tokens_per_step, thread)
        device = next(vae.parameters()).device
        decoder = ThreadPoolExecutor(1, "decode", initializer=_use_own_stream, initargs=(device,))
        self._budget = tokens_per_step
        self._tools = Tools(
            store,
            sampler,
            vae,
            embed,
            self.engine,
            Memory(cache_tokens),
            decoder,
            WorkerMetrics(),
            traces or Traces(),
            judge,
        )
        self._running: dict[str, tuple[Attempt, asyncio.Task[None]]] = {}

    async def run(self, job_id: str, number: int) -> AsyncGenerator[Progress, None]:
        """Carry out an attempt, and say how far it is until it is over; closed early, it is given up at once.

        A new broker may ask for a job that this worker is still at: then it follows that attempt.

        Raises:
            Exception: the attempt died.
        """
        if job_id not in self._running and not await self._began(job_id, number):
            return
        attempt, task = self._running[job_id]
        try:
            async for progress in attempt.progress.changes():
                yield progress
            await task
        finally:
            task.cancel()
            await asyncio.wait((task,))

    def close(self) -> None:
        """Let go of what this worker has; it carries out nothing now, and will not again."""
        self._tools.decoder.shutdown(wait=False)
        self._tools.metrics.cache(self._version, 0)

    def _step(self, sessions: Sequence[Session]) -> list[Unit]:
        metrics = self._tools.metrics
        tokens, started = sum(session.next_tokens for session in sessions), time.monotonic()
        # On the CPU latents are safe from what other streams do, and go to the store from there.
        units = [replace(unit, latent_CTHW=unit.latent_CTHW.cpu()) for unit in self._sampler.step(sessions)]
        metrics.step.observe(time.monotonic() - started)
        metrics.sessions.observe(len(sessions))
        metrics.fill.observe(tokens / self._budget)
        metrics.cache(self._version, self.engine.cache_bytes)
        return units

    async def _began(self, job_id: str, number: int) -> bool:
        if not await asyncio.to_thread(self._store.begin, job_id, number):
            return False
        job = await asyncio.to_thread(self._store.job, job_id)
        if job is None:
            # Deleted in this very moment.
            await asyncio.to_thread(self._store.delete, job_id)
            return False
        if job.model_version != self._version:
            message = f"The job asks for version {job.model_version} of the model, this server has {self._version}."
            await asyncio.to_thread(self._store.end, job_id, VideoError(code="model_changed", message=message))
            return False
        attempt = Attempt(self._tools, job, number)
        self._running[job_id] = attempt, asyncio.create_task(self._finish(attempt, job_id))
        return True

    async def _finish(self, attempt: Attempt, job_id: str) -> None:
        try:
            await attempt.run()
        except Exception:
            log.exception("attempt died", extra={"job": job_id})
            raise
        finally:
            del self._running[job_id]
            self._tools.metrics.cache(self._version, self.engine.cache_bytes)
            attempt.progress.close()
            # What was being written when somebody deleted the job is deleted as well.
            if not await asyncio.to_thread(self._store.has, job_id):
                await asyncio.to_thread(self._store.delete, job_id)


def _use_own_stream(device: torch.device) -> None:
    """Let what this thread runs on a GPU overlap with what other threads run."""
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device))
