"""A job: a brief that somebody asked for, and the facts that are recorded about it later."""

import hashlib
import re
import secrets
import time
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rayramid.models.brief import Brief, Prompts
from rayramid.models.card import ModelCard
from rayramid.models.dit.config import DiTConfig
from rayramid.models.history import unit_count
from rayramid.models.workload import Workload
from rayramid.serve.wire import Generated, ScheduledPrompt, Status, Video, VideoError, VideoEvent

ID_PATTERN = re.compile(r"video_[0-9a-f]{28}")


class Record(BaseModel):
    """What the store keeps as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(Record):
    """One video to make; written once, never changed.

    Args:
        id: sorts by the time of creation.
        created_at: Unix time.
        owner: whose turn it takes in the queue.
        model: its name for clients.
        model_version: the one that makes it, or none does.
        brief: what to make.
        given: latents that it begins with: the store's picture (1), or those of the video that it extends.
        work: what `brief` asks of the model.
        asked: the prompts as they were before the brief's were rewritten, by unit.
        remixed_from: the video whose brief it is, but for the prompt.
        extended_from: the video that it begins with.
        priority: of two jobs of one owner the higher goes first.
        deadline: Unix time at which it fails.
        key: the file that holds its `Idempotency-Key`.
        webhook_url: what is told when it has ended.
        trace: W3C's `traceparent` of the request, if it is traced.
    """

    id: str
    created_at: int
    owner: str
    model: str
    model_version: str
    brief: Brief
    given: int
    work: Workload
    asked: Prompts = ()
    remixed_from: str | None = None
    extended_from: str | None = None
    priority: int = 0
    deadline: float | None = None
    key: str | None = None
    webhook_url: str | None = None
    trace: str | None = None

    @property
    def image(self) -> bool:
        """Whether the store holds a picture that it begins with."""
        return self.given == 1 and self.extended_from is None

    @property
    def given_units(self) -> int:
        """Units that it begins with."""
        return unit_count(self.given, self.brief.frames_per_unit) if self.given else 0


class Progress(Record):
    """How far the newest attempt has come: denoising steps, units that can be played, prompts by unit."""

    steps_done: int
    steps_total: int
    units_done: int
    prompts: Prompts

    @property
    def percent(self) -> int:
        """Never 100: that is for the outcome to say."""
        return min(99, 100 * self.steps_done // max(1, self.steps_total))


class Standing(Record):
    """Where an unfinished job stands: its place in the queue (0: it is being made) and when it will likely be done."""

    progress: Progress | None
    queue_position: int
    estimated_seconds: float | None


class Outcome(Record):
    """How a job ended; written once, never changed."""

    status: Literal["completed", "failed"]
    ended_at: int
    error: VideoError | None = None


class Model(Record):
    """What answers: its name for clients, its version, its card."""

    name: str
    version: str
    card: ModelCard

    @property
    def config(self) -> DiTConfig:
        """The transformer's configuration."""
        return DiTConfig(**self.card.dit)

    @classmethod
    def of(cls, card: ModelCard, name: str | None, adapter: bytes = b"") -> "Model":
        """The model of a card, which names all weights, and of an adapter's digest; the version is a digest of both."""
        version = hashlib.sha256(card.to_json() + adapter).hexdigest()[:12]
        return cls(name=name or card.preset, version=version, card=card)


def new_id() -> str:
    """An id that sorts by the millisecond of its creation."""
    return f"video_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"


def created_ms(job_id: str) -> int:
    """When an id was made, in Unix milliseconds."""
    return int(job_id.removeprefix("video_")[:12], 16)


def age_s(job_id: str) -> float:
    """Seconds since a job was asked for."""
    return max(0.0, time.time() - created_ms(job_id) / 1000)


def video_of(
    job: Job, progress: Progress | None, outcome: Outcome | None, *, keep_s: float | None = None, url: str | None = None
) -> Video:
    """What clients see of a job.

    Args:
        job: as it was asked for.
        progress: None while it waits.
        outcome: None until it has ended.
        keep_s: how long it is kept after that.
        url: where the store gives the video out.
    """
    status: Status = outcome.status if outcome else "in_progress" if progress else "queued"
    brief = job.brief
    prompts = [_shown(job, unit, text) for unit, text in (progress.prompts if progress else brief.prompts.items())]
    return Video(
        id=job.id,
        model=job.model,
        status=status,
        progress=100 if status == "completed" else progress.percent if progress else 0,
        created_at=job.created_at,
        completed_at=outcome.ended_at if outcome and status == "completed" else None,
        expires_at=int(outcome.ended_at + keep_s) if outcome and keep_s else None,
        prompt=prompts[0].prompt,
        size=f"{brief.width}x{brief.height}",
        seconds=f"{brief.frames / brief.fps:.4g}",
        remixed_from_video_id=job.remixed_from,
        error=outcome.error if outcome else None,
        model_version=job.model_version,
        rewritten_prompt=prompts[0].rewritten_prompt,
        prompt_schedule=prompts[1:],
        negative_prompt=brief.negative_prompt,
        extended_from_video_id=job.extended_from,
        seed=brief.seed,
        steps=brief.steps,
        guidance_scale=brief.guidance,
        video_guidance_scale=brief.video_guidance,
        fps=brief.fps,
        frames=brief.frames,
        generated=Generated(width=brief.grid_width, height=brief.grid_height, frames=brief.grid_frames),
        priority=job.priority,
        deadline=job.deadline,
        url=url,
    )


def _shown(job: Job, unit: int, text: str) -> ScheduledPrompt:
    """A prompt as clients see it; one that a change has replaced was not rewritten."""
    asked = dict(job.asked).get(unit) if job.brief.prompts.get(unit) == text else None
    return ScheduledPrompt(
        from_second=job.brief.second_of(unit),
        prompt=asked or text,
        rewritten_prompt=text if asked else None,
    )


def event_of(job: Job, standing: Standing) -> VideoEvent:
    """What watchers are told of an unfinished job."""
    progress, brief = standing.progress, job.brief
    units = progress.units_done if progress else 0
    return VideoEvent(
        id=job.id,
        status="in_progress" if progress else "queued",
        progress=progress.percent if progress else 0,
        queue_position=standing.queue_position,
        estimated_seconds=standing.estimated_seconds,
        playable_seconds=min(brief.frames / brief.fps, brief.second_of(units)) if units else 0.0,
    )
