"""A job: a brief that somebody asked for, and the facts that are recorded about it later."""

import hashlib
import re
import secrets
import time
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rayramid.models.brief import Brief, BriefError, parse_size, write_brief
from rayramid.models.card import ModelCard
from rayramid.serve.errors import bad_request
from rayramid.serve.spec import Limits
from rayramid.serve.wire import CreateVideo, Generated, Status, Video, VideoError

ID_PATTERN = re.compile(r"video_[0-9a-f]{28}")


class Record(BaseModel):
    """What the store keeps as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(Record):
    """One video to make; written once, never changed.

    `owner` is whose turn it takes in the queue, `image` whether the store holds a first frame for it.
    """

    id: str
    created_at: int
    owner: str
    model: str
    model_version: str
    image: bool
    brief: Brief


class Progress(Record):
    """How far the newest attempt has come, in denoising steps and finished units."""

    steps_done: int
    steps_total: int
    units_done: int


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

    @classmethod
    def of(cls, card: ModelCard, name: str | None) -> "Model":
        """The model of a checkpoint folder; jobs pin its version, a digest of the card."""
        return cls(name=name or card.preset, version=hashlib.sha256(card.to_json()).hexdigest()[:12], card=card)


def new_id() -> str:
    """An id that sorts by the millisecond of its creation."""
    return f"video_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"


def accept(request: CreateVideo, model: Model, limits: Limits, *, owner: str, image: bool) -> Job:
    """Make a job of a request.

    Raises:
        ApiError: 400 that names the parameter and what is allowed.
    """
    if request.model not in (None, model.name):
        message = f"The model {request.model!r} is not served here; use {model.name!r} or leave it out."
        raise bad_request(message, "model", "model_not_found")
    try:
        brief = write_brief(
            model.card,
            request.prompt,
            size=parse_size(request.size) if request.size is not None else None,
            seconds=request.seconds,
            seed=request.seed,
            steps=request.steps,
            guidance=request.guidance_scale,
            video_guidance=request.video_guidance_scale,
            negative_prompt=request.negative_prompt,
        )
    except BriefError as error:
        raise bad_request(str(error), error.param) from error
    if request.size is not None and brief.width * brief.height > limits.pixels:
        raise bad_request(f"The size {request.size} has more than the {limits.pixels} pixels that are allowed.", "size")
    if request.seconds is not None and request.seconds > limits.seconds:
        raise bad_request(
            f"{request.seconds:g} seconds are more than the {limits.seconds:g} that are allowed.", "seconds"
        )
    return Job(
        id=new_id(),
        created_at=int(time.time()),
        owner=owner,
        model=model.name,
        model_version=model.version,
        image=image,
        brief=brief,
    )


def video_of(job: Job, progress: Progress | None, outcome: Outcome | None) -> Video:
    """What clients see of a job; `progress` is None while it waits."""
    status: Status = outcome.status if outcome else "in_progress" if progress else "queued"
    percent = 0
    if status == "completed":
        percent = 100
    elif progress:
        percent = min(99, 100 * progress.steps_done // max(1, progress.steps_total))
    brief = job.brief
    return Video(
        id=job.id,
        model=job.model,
        status=status,
        progress=percent,
        created_at=job.created_at,
        completed_at=outcome.ended_at if outcome and status == "completed" else None,
        expires_at=None,
        prompt=brief.prompt,
        size=f"{brief.width}x{brief.height}",
        seconds=f"{brief.frames / brief.fps:.4g}",
        remixed_from_video_id=None,
        error=outcome.error if outcome else None,
        model_version=job.model_version,
        negative_prompt=brief.negative_prompt,
        seed=brief.seed,
        steps=brief.steps,
        guidance_scale=brief.guidance,
        video_guidance_scale=brief.video_guidance,
        fps=brief.fps,
        frames=brief.frames,
        generated=Generated(width=brief.grid_width, height=brief.grid_height, frames=brief.grid_frames),
    )
