"""One replica's work: an attempt at a job, from the embedded prompt to the video in the store.

Units come out of the engine one by one; each is decoded, cropped, encoded and stored while the engine makes the next.
What the store holds after each unit is enough for another replica to go on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from rayramid.models.render import request_of
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.session import Session
from rayramid.models.text import TextEmbedding
from rayramid.models.vae.model import CausalVAE
from rayramid.serve.engine import Engine
from rayramid.serve.job import Job, Progress
from rayramid.serve.reel import Reel
from rayramid.serve.store import Store
from rayramid.serve.wire import VideoError

log = logging.getLogger(__name__)

Embed = Callable[[list[str]], Awaitable[list[TextEmbedding]]]

PROGRESS_S = 1.0


class Worker:
    """Carries out attempts; any number at a time.

    Args:
        store: where jobs live.
        sampler: steps sessions.
        vae: decodes their units.
        embed: gives text embeddings for prompts.
        version: of the model; jobs of another one fail.
        tokens_per_step: target tokens that one forward may hold.
    """

    def __init__(
        self, store: Store, sampler: Sampler, vae: CausalVAE, embed: Embed, *, version: str, tokens_per_step: int
    ) -> None:
        self._store = store
        self._sampler = sampler
        self._vae = vae
        self._embed = embed
        self._version = version
        self.engine = Engine(sampler.step, tokens_per_step)
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self, job_id: str, attempt: int) -> None:
        """Carry out an attempt; returns when the job has ended or a later attempt has begun elsewhere.

        A new broker may ask for a job that this worker is still at: then it waits for that attempt.
        """
        task = self._running.get(job_id)
        if task is None:
            task = asyncio.create_task(self._attempt(job_id, attempt))
            self._running[job_id] = task
            task.add_done_callback(lambda _: self._running.pop(job_id))
        await task

    async def _attempt(self, job_id: str, attempt: int) -> None:
        if not await asyncio.to_thread(self._store.begin, job_id, attempt):
            return
        job = await asyncio.to_thread(self._store.job, job_id)
        if job is None or not await asyncio.to_thread(self._store.goes_on, job_id, attempt):
            return
        if job.model_version != self._version:
            message = f"The job asks for version {job.model_version} of the model, this server has {self._version}."
            await asyncio.to_thread(self._store.end, job_id, VideoError(code="model_changed", message=message))
            return
        # Outside the boundary below: when the text process dies, so does the attempt, and the broker makes another.
        prompt, negative = await self._embed([job.brief.text, job.brief.negative_prompt])
        try:
            await self._make(job, attempt, prompt, negative)
        # The boundary of one job: its error is recorded with it, and the replica serves on.
        except Exception as error:
            log.exception("job failed", extra={"job": job_id})
            message = f"The video could not be made: {type(error).__name__}: {error}"
            await asyncio.to_thread(self._store.end, job_id, VideoError(code="server_error", message=message))

    async def _make(self, job: Job, attempt: int, prompt: TextEmbedding, negative: TextEmbedding) -> None:
        reel = Reel(self._store, self._vae, job)
        session = await asyncio.to_thread(self._session, job, reel, prompt, negative)
        ticker = asyncio.create_task(self._report(job, session, reel))
        try:
            async with aclosing(self.engine.units(session)) as units:
                async for finished in units:
                    if not await asyncio.to_thread(self._store.goes_on, job.id, attempt):
                        return
                    await asyncio.to_thread(reel.add, finished)
        finally:
            ticker.cancel()
        await asyncio.to_thread(reel.finish)
        await asyncio.to_thread(self._store.end, job.id)

    def _session(self, job: Job, reel: Reel, prompt: TextEmbedding, negative: TextEmbedding) -> Session:
        """Go on from what the store holds, or begin, with the job's picture if it has one."""
        saved = reel.load()
        if saved is not None:
            given_CTHW = saved["latents"][:, :1] if job.image else None
            return self._sampler.resume(request_of(job.brief, prompt, negative, given_CTHW), saved)
        given_CTHW = reel.add_image() if job.image else None
        return self._sampler.start(request_of(job.brief, prompt, negative, given_CTHW))

    async def _report(self, job: Job, session: Session, reel: Reel) -> None:
        written: Progress | None = None
        while True:
            progress = Progress(steps_done=session.steps_done, steps_total=session.steps_total, units_done=reel.units)
            if progress != written:
                await asyncio.to_thread(self._store.set_progress, job.id, progress)
                written = progress
            await asyncio.sleep(PROGRESS_S)
