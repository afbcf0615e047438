"""OpenAI's Videos API in pydantic classes: what requests and answers look like on the wire."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["queued", "in_progress", "completed", "failed"]


class CreateVideo(BaseModel):
    """The body of `POST /v1/videos`, apart from the image. The last five fields are this server's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1, max_length=32000)
    model: str | None = None
    size: str | None = Field(default=None, description="WIDTHxHEIGHT in pixels; the model's own size when left out")
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    steps: int | None = Field(default=None, ge=1, le=200, description="Denoising steps per stage of every unit")
    guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    video_guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    negative_prompt: str | None = Field(default=None, max_length=32000)


class VideoError(BaseModel):
    """Why a job failed; a cancelled job has the code `cancelled`."""

    code: str
    message: str


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
    expires_at: int | None
    prompt: str | None
    size: str
    seconds: str
    remixed_from_video_id: str | None
    error: VideoError | None

    model_version: str
    negative_prompt: str
    seed: int
    steps: tuple[tuple[int, ...], tuple[int, ...]] = Field(
        description="Per stage, coarse to fine: first unit, later units"
    )
    guidance_scale: float
    video_guidance_scale: float
    fps: float
    frames: int
    generated: Generated


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


class Health(BaseModel):
    """Whether the process lives, or the endpoint can generate."""

    status: Literal["ok", "ready"]
