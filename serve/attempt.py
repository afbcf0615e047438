"""One worker's go at a job: from the first unit that is not in the store to the finished video.

Units come out of the engine one by one; each is decoded, cropped, encoded and stored while the engine makes the next.
What the store holds after each unit is enough for another worker to go on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from rayramid.models.brief import Frames
from rayramid.models.render import request_of
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.session import Session
from rayramid.models.text import TextEmbedding
from rayramid.models.vae.model import CausalVAE
from rayramid.serve.engine import Engine
from rayramid.serve.job import Job, Progress
from rayramid.serve.latest import Latest
from rayramid.serve.memory import Memory
from rayramid.serve.metrics import WorkerMetrics
from rayramid.serve.reel import Reel
from rayramid.serve.safety import BLOCKED, Judge
from rayramid.serve.store import Store
from rayramid.serve.tracing import Traces
from rayramid.serve.wire import VideoError

Embed = Callable[[list[str]], Awaitable[list[TextEmbedding]]]
P = ParamSpec("P")
R = TypeVar("R")

PROGRESS_S = 0.25
# So often at the most it is written down, for those who ask when no broker lives.
STORED_PROGRESS_S = 1.0
REFUSED = VideoError(code=BLOCKED, message="The video shows something that this server does not show.")


@dataclass(frozen=True)
class Tools:
    """What a worker's attempts share; `decoder` is the thread that decodes, `judge` says what must not be shown."""

    store: Store
    sampler: Sampler
    vae: CausalVAE
    embed: Embed
    engine: Engine
    memory: Memory
    decoder: Executor
    metrics: WorkerMetrics
    traces: Traces
    judge: Judge | None = None


class RefusedError(Exception):
    """The frames of a unit must not be shown."""


class Made(NamedTuple):
    """A unit on its way to the store, and the prompt that begins with it."""

    unit: int
    latent_CTHW: Tensor
    prompt: str | None


class Attempt:
    """Attempt `number` at a job; `progress` is closed when it is over."""

    def __init__(self, tools: Tools, job: Job, number: int) -> None:
        self._tools = tools
        self._store = tools.store
        self._job = job
        self._number = number
        self._reel = Reel(tools.store, tools.vae, job)
        # What each unit shows, by the unit at which it begins.
        self._prompts: dict[int, str] = {}
        self._written: Progress | None = None
        # When the unit before was.
        self._shown_at: float | None = None
        self.progress: Latest[Progress] = Latest()

    async def run(self) -> None:
        """Return when the job has ended, a later attempt has begun elsewhere, or this one was asked to leave off.

        Raises:
            Exception: whatever went wrong; the store is such that another attempt can go on.
        """
        with self._tools.traces.attempt(self._job, self._number):
            await self._run()

    async def _run(self) -> None:
        async with self._tools.memory.hold(self._job.work.cached_tokens):
            stored, prompts = await self._blocking(None, self._reel.load)
            self._prompts = dict(prompts)
            if not stored:
                self._prompts[0] = await self._prompt_at(0) or self._job.brief.prompt
            latents = stored
            if self._job.image and not stored:
                latents = [await self._blocking(self._tools.decoder, self._reel.image)]
            try:
                session = await self._session(latents)
            except ValueError as error:
                refusal = VideoError(code="invalid_request", message=str(error))
                await asyncio.to_thread(self._store.end, self._job.id, refusal)
                return
            try:
                await self._make(session, latents, len(stored))
            except RefusedError:
                await asyncio.to_thread(self._store.end, self._job.id, REFUSED)
                return
        if session.done and not await self._is_over():
            await self._blocking(None, self._reel.finish, dict(self._prompts))
            await asyncio.to_thread(self._store.end, self._job.id)

    # -- the beginning ------------------------------------------------------------------------------------------------

    async def _session(self, latents: list[Tensor]) -> Session:
        """Go on behind the units that are there; ValueError for what the model can't make."""
        brief = self._job.brief
        texts = [brief.negative_prompt, *map(brief.text_of, self._prompts.values())]
        negative, *embedded = await self._tools.embed(texts)
        so_far = torch.cat(latents, dim=1) if latents else None
        given = so_far[:, : self._job.given] if so_far is not None and self._job.given else None
        request = request_of(brief, dict(zip(self._prompts, embedded, strict=True)), negative, given)
        if so_far is None:
            return self._tools.sampler.start(request)
        return self._tools.sampler.resume(request, {"latents": so_far, "position": torch.zeros(2, dtype=torch.long)})

    async def _prompt_at(self, unit: int) -> str | None:
        """The prompt that begins at a unit, from now on settled."""
        scheduled = self._job.brief.prompts.get(unit)
        return await asyncio.to_thread(self._store.decide, self._job.id, unit, scheduled)

    # -- unit by unit -------------------------------------------------------------------------------------------------

    async def _make(self, session: Session, latents: list[Tensor], stored: int) -> None:
        # One unit is being decoded and one waits for it while the next one is made.
        made: asyncio.Queue[Made | None] = asyncio.Queue(1)
        try:
            async with asyncio.TaskGroup() as group:
                reporting = group.create_task(self._report(session))
                group.create_task(self._denoise(session, made))
                await self._keep(session, latents, stored, made)
                reporting.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await self._tell(session, write=True)

    async def _denoise(self, session: Session, made: "asyncio.Queue[Made | None]") -> None:
        first = session.unit
        with self._tools.engine.seat(session, self._job.owner, self._job.priority) as seat:
            while not session.done:
                control = await asyncio.to_thread(self._store.control, self._job.id)
                asked_to_leave = self._number in control.paused and session.unit > first
                if asked_to_leave or control.ended or control.attempts != self._number:
                    break
                unit = session.unit
                prompt = await self._changed_prompt(session, unit) if unit else self._prompts[0]
                with self._tools.traces.part("denoise", unit):
                    finished = await self._tools.engine.unit(seat)
                await made.put(Made(unit, finished.latent_CTHW, prompt))
        await made.put(None)

    async def _changed_prompt(self, session: Session, unit: int) -> str | None:
        """Let the session see the prompt that begins at a unit, if one does."""
        prompt = await self._prompt_at(unit)
        if prompt is None or prompt == self._prompts[max(self._prompts)]:
            return None
        (text,) = await self._tools.embed([self._job.brief.text_of(prompt)])
        session.change_prompt(unit, text)
        self._prompts[unit] = prompt
        return prompt

    async def _keep(
        self, session: Session, latents: list[Tensor], stored: int, made: "asyncio.Queue[Made | None]"
    ) -> None:
        if not stored:
            # While the first unit is made: it shall be seen at once.
            await self._blocking(None, self._reel.begin)
        for unit, latent_CTHW in enumerate(latents):
            frames_THWC = await self._decoded(unit, latent_CTHW)
            if unit >= stored - 1:
                await self._show(session, unit, frames_THWC)
            if unit >= stored:
                await self._blocking(None, self._reel.keep, unit, latent_CTHW, self._prompts[unit])
        while (each := await made.get()) is not None:
            frames_THWC = await self._decoded(each.unit, each.latent_CTHW)
            with self._tools.traces.part("store", each.unit):
                await self._show(session, each.unit, frames_THWC)
                self._measure(frames_THWC)
                await self._blocking(None, self._reel.keep, *each)

    async def _decoded(self, unit: int, latent_CTHW: Tensor) -> Frames:
        with self._tools.traces.part("decode", unit):
            return await self._blocking(self._tools.decoder, self._reel.frames, latent_CTHW)

    async def _show(self, session: Session, unit: int, frames_THWC: Frames) -> None:
        """Let a unit be seen, if it may be."""
        if self._tools.judge and await self._tools.judge.refuses(frames_THWC):
            raise RefusedError
        await self._blocking(None, self._reel.show, unit, frames_THWC)
        await self._tell(session)

    def _measure(self, frames_THWC: Frames) -> None:
        now = time.monotonic()
        if self._shown_at is not None:
            self._tools.metrics.gap.observe(now - self._shown_at)
        self._shown_at = now
        self._tools.metrics.video.inc(len(frames_THWC) / self._job.brief.fps)

    async def _blocking(self, lane: Executor | None, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do something of the reel's. A thread can't be cancelled: what it writes is there when this returns."""
        running = asyncio.get_running_loop().run_in_executor(lane, partial(work, *args, **kwargs))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    # -- telling ------------------------------------------------------------------------------------------------------

    async def _report(self, session: Session) -> None:
        clock = asyncio.get_running_loop().time
        written = -STORED_PROGRESS_S
        while True:
            due = clock() - written >= STORED_PROGRESS_S
            await self._tell(session, write=due)
            written = clock() if due else written
            await asyncio.sleep(PROGRESS_S)

    async def _tell(self, session: Session, *, write: bool = False) -> None:
        to_come = {unit: prompt for unit, prompt in self._job.brief.prompts.items() if unit > session.unit}
        progress = Progress(
            steps_done=session.steps_done,
            steps_total=session.steps_total,
            units_done=self._reel.playable,
            prompts=tuple((self._prompts | to_come).items()),
        )
        self.progress.set(progress)
        if write and progress != self._written:
            self._written = progress
            await asyncio.to_thread(self._store.set_progress, self._job.id, progress)

    async def _is_over(self) -> bool:
        control = await asyncio.to_thread(self._store.control, self._job.id)
        return control.ended or control.attempts != self._number
