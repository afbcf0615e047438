"""From a request to a job: what the model and the limits allow, or a 400 that names the parameter."""

import time
from dataclasses import replace

from rayramid.models.brief import Brief, BriefError, Prompts, extended, parse_size, write_brief
from rayramid.models.workload import workload
from rayramid.serve.errors import bad_request
from rayramid.serve.job import Job, Model
from rayramid.serve.spec import Limits
from rayramid.serve.wire import CreateVideo, Errand, ExtendVideo, RemixVideo


class Acceptance:
    """Turns requests into jobs, each of the model that it is given."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def creation(self, request: CreateVideo, model: Model, job_id: str, owner: str, *, image: bool) -> Job:
        """A new video.

        Raises:
            ApiError: 400 that names the parameter and what is allowed.
        """
        if image and model.card.frames_per_unit is None:
            raise bad_request(
                "This model makes a whole video at once; it can't begin with a picture.", "input_reference"
            )
        self._check_seconds(request.seconds)
        self._check_lengths(request, request.prompt, request.negative_prompt)
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
                schedule=_pairs(request),
            )
        except BriefError as error:
            raise bad_request(str(error), error.param) from error
        # A thin video is made of far more pixels than it shows.
        if request.size is not None and brief.grid_width * brief.grid_height > self._limits.pixels:
            message = (
                f"The size {request.size}, made at {brief.grid_width}x{brief.grid_height}, has more than the "
                f"{self._limits.pixels} pixels that are allowed."
            )
            raise bad_request(message, "size")
        return self._job(request, model, job_id, owner, brief, given=int(image))

    def remix(self, request: RemixVideo, model: Model, job_id: str, owner: str, source: Job) -> Job:
        """The same noise, size, length and settings with another prompt, which keeps much of the composition.

        Raises:
            ApiError: 400 for a schedule that does not fit.
        """
        self._check_lengths(request, request.prompt)
        brief = source.brief
        try:
            renewed = write_brief(
                model.card,
                request.prompt,
                size=(brief.width, brief.height),
                seconds=brief.frames / brief.fps,
                schedule=_pairs(request),
            )
        except BriefError as error:
            raise bad_request(str(error), error.param) from error
        brief = replace(brief, prompt=request.prompt, later_prompts=renewed.later_prompts)
        # An extended video's latents are its own: its remix is made from the start.
        return self._job(request, model, job_id, owner, brief, given=int(source.image)).model_copy(
            update={"remixed_from": source.id}
        )

    def extension(
        self, request: ExtendVideo, model: Model, job_id: str, owner: str, source: Job, prompts: Prompts
    ) -> Job:
        """A finished video with more behind it.

        Args:
            request: what the client asks for.
            model: that made the finished video.
            job_id: of the new job.
            owner: of the new job.
            source: the finished video.
            prompts: what it was made with, by unit, changes included.

        Raises:
            ApiError: 400 that names the parameter.
        """
        self._check_seconds(request.seconds)
        self._check_lengths(request, request.prompt)
        (_, first), *later = prompts
        brief = replace(source.brief, prompt=first, later_prompts=tuple(later))
        prompt = request.prompt or prompts[-1][1]
        try:
            longer = extended(brief, request.seconds, prompt, _pairs(request))
        except BriefError as error:
            raise bad_request(str(error), error.param) from error
        return self._job(request, model, job_id, owner, longer, given=brief.latents).model_copy(
            update={"extended_from": source.id, "asked": source.asked}
        )

    def _job(self, request: Errand, model: Model, job_id: str, owner: str, brief: Brief, *, given: int) -> Job:
        now = time.time()
        work = workload(
            model.config,
            brief.latents,
            brief.latent_size,
            brief.steps,
            (brief.guidance, brief.video_guidance),
            given=given,
        )
        return Job(
            id=job_id,
            created_at=int(now),
            owner=owner,
            model=model.name,
            model_version=model.version,
            brief=brief,
            given=given,
            work=work,
            priority=request.priority,
            deadline=now + request.deadline_seconds if request.deadline_seconds else None,
            webhook_url=request.webhook_url,
        )

    def _check_seconds(self, seconds: float | None) -> None:
        if seconds is not None and seconds > self._limits.seconds:
            message = f"{seconds:g} seconds are more than the {self._limits.seconds:g} that are allowed."
            raise bad_request(message, "seconds")

    def _check_lengths(self, request: Errand, prompt: str | None, negative: str | None = None) -> None:
        check_lengths(self._limits, prompt=prompt, negative_prompt=negative)
        for each in request.prompt_schedule:
            check_lengths(self._limits, prompt_schedule=each.prompt)


def check_lengths(limits: Limits, **prompts: str | None) -> None:
    """Refuse what is too long to be a prompt, by the parameter's name."""
    for param, prompt in prompts.items():
        if prompt is not None and len(prompt) > limits.prompt_characters:
            message = (
                f"{param} has {len(prompt)} characters, more than the {limits.prompt_characters} that are allowed."
            )
            raise bad_request(message, param)


def _pairs(request: Errand) -> list[tuple[float, str]]:
    return [(each.from_second, each.prompt) for each in request.prompt_schedule]
