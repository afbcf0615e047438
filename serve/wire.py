"""OpenAI's Videos API in pydantic classes: what requests and answers look like on the wire."""

import json
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

Status = Literal["queued", "in_progress", "completed", "failed"]
Prompt = Annotated[str, Field(min_length=1, max_length=32000)]
Scale = Annotated[float, Field(ge=0, le=100), AllowInfNan(False)]
MOST_PROMPTS = 64
# Of an Idempotency-Key, in characters.
KEY_LENGTH = 255


def _number(value: Any) -> Any:
    """OpenAI's clients send seconds as a string."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is not a valid number") from error
    return value


Seconds = Annotated[
    float,
    BeforeValidator(_number, json_schema_input_type=float | Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")]),
    Field(gt=0),
    AllowInfNan(False),
]


class Body(BaseModel):
    """A request: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptAt(Body):
    """A prompt that takes over in the midst of a video."""

    from_second: Annotated[float, Field(ge=0, le=1e6), AllowInfNan(False)]
    prompt: Prompt


def _parsed(value: Any) -> Any:
    """A form has no lists; what `curl -F` sends is JSON."""
    if not isinstance(value, str):
        return value
    try:
        json.loads(value)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    return _PROMPTS.validate_json(value, strict=True)


_PROMPTS = TypeAdapter(list[PromptAt])


def _truth(value: Any) -> Any:
    """A form has no booleans."""
    return {"true": True, "false": False}.get(value, "") if isinstance(value, str) else value


Flag = Annotated[bool, BeforeValidator(_truth, json_schema_input_type=bool)]


Schedule = Annotated[
    list[PromptAt],
    BeforeValidator(_parsed, json_schema_input_type=list[PromptAt]),
    Field(
        max_length=MOST_PROMPTS,
        description="Further prompts, in order; each holds from the first unit on that begins at its second or later. "
        "JSON in a form",
    ),
]


class Errand(Body):
    """What every request for a video may carry beside OpenAI's parameters."""

    prompt_schedule: Schedule = []
    rewrite_prompt: Flag = Field(
        default=False, description="Let the server's language model write the prompts out; both are in the answer"
    )
    webhook_url: str | None = Field(
        default=None,
        max_length=2048,
        description="Is sent a signed event `video.completed` or `video.failed`, if the server sends any",
    )
    priority: int = Field(default=0, ge=-100, le=100, description="Of two jobs of one API key the higher goes first")
    deadline_seconds: Annotated[float, Field(gt=0, le=1e9), AllowInfNan(False)] | None = Field(
        default=None, description="A video that is not completed by then has failed; earlier deadlines go first"
    )


class PictureReference(Body):
    """The picture that a video begins with, where it is not a file."""

    image_url: str = Field(
        pattern="^(data:|https?://)", description="data:image/…;base64,… or, if the server asks URLs, a URL"
    )


class CreateVideo(Errand):
    """The body of `POST /v1/videos`, apart from the picture. Fields after `seconds` are this server's own."""

    prompt: Prompt
    model: str | None = None
    size: str | None = Field(
        default=None,
        # Said to clients, checked where the message is better.
        json_schema_extra={"pattern": r"^[1-9]\d{0,4}x[1-9]\d{0,4}$"},
        description="WIDTHxHEIGHT in pixels, both even; the model's own size when left out",
    )
    seconds: Seconds | None = Field(default=None, description="The model's own length when left out")
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="Repeats a video; drawn when left out")
    steps: int | None = Field(default=None, ge=1, le=200, description="Denoising steps per stage of every unit")
    guidance_scale: Scale | None = None
    video_guidance_scale: Scale | None = None
    negative_prompt: str | None = Field(default=None, max_length=32000)


class RemixVideo(Errand):
    """The body of `POST /v1/videos/{id}/remix`."""

    prompt: Prompt


class VideoReference(Body):
    """A video by its id."""

    id: str


class ExtendVideo(Errand):
    """The body of `POST /v1/videos/extensions`; seconds of the schedule count from the whole video's beginning."""

    video: VideoReference
    prompt: Prompt | None = Field(default=None, description="What the video showed last when left out")
    seconds: Seconds = Field(description="To be added")


class EditVideo(Body):
    """The body of `POST /v1/videos/edits`, which is refused."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ChangePrompt(Body):
    """The body of `POST /v1/videos/{id}/prompt`."""

    prompt: Prompt


class VideoError(BaseModel):
    """Why a job failed; a cancelled job has the code `cancelled`."""

    code: str
    message: str


class ScheduledPrompt(BaseModel):
    """A prompt that took over in the midst of a video or will; `rewritten_prompt` is what the model was told."""

    from_second: float
    prompt: str
    rewritten_prompt: str | None


class Generated(BaseModel):
    """What the model made before cropping and trimming to what was asked for."""

    width: int
    height: int
    frames: int


class Video(BaseModel):
    """A video and the job that makes it. The fields after `error` are this server's own."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int = Field(ge=0, le=100)
    created_at: int
    completed_at: int | None
    expires_at: int | None = Field(description="When the video is forgotten, if ever")
    prompt: str | None
    size: str
    seconds: str
    remixed_from_video_id: str | None
    error: VideoError | None

    model_version: str
    rewritten_prompt: str | None = Field(description="What the model was told, if `rewrite_prompt` was set")
    prompt_schedule: list[ScheduledPrompt] = Field(description="Later prompts, changes included")
    negative_prompt: str
    extended_from_video_id: str | None
    seed: int
    steps: tuple[tuple[int, ...], tuple[int, ...]] = Field(
        description="Per stage, coarse to fine: first unit, later units"
    )
    guidance_scale: float
    video_guidance_scale: float
    fps: float
    frames: int
    generated: Generated
    priority: int
    deadline: float | None
    url: str | None = Field(description="Where the store itself gives the completed video out, if it does")


class VideoList(BaseModel):
    """One page of videos."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class PromptChanged(BaseModel):
    """The answer to a change of prompt: stored, and in force from then on."""

    id: str
    object: Literal["video.prompt"] = "video.prompt"
    prompt: str
    from_second: float
    from_unit: int


class VideoEvent(BaseModel):
    """How far a video is: the data of `progress` events. `completed` and `failed` events carry the video itself."""

    id: str
    object: Literal["video.event"] = "video.event"
    status: Literal["queued", "in_progress"]
    progress: int = Field(ge=0, le=100)
    queue_position: int = Field(ge=0, description="1 is next; 0 while it is being made")
    estimated_seconds: float | None = Field(description="Until it is completed; null before anything was measured")
    playable_seconds: float = Field(description="How much of it can be played already")


class Health(BaseModel):
    """Whether the process lives, or the endpoint can generate."""

    status: Literal["ok", "ready"]
