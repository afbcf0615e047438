"""The spec of an endpoint: which model answers, where jobs live, what is allowed."""

from ipaddress import ip_address, ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from rayramid.models import storage

Location = Annotated[str, AfterValidator(storage.absolute)]


class Options(BaseModel):
    """Settings are frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoscalingOptions(Options):
    """How many replicas of the sampler there are, by what their work costs."""

    min: int = Field(default=0, ge=0, description="Of replicas; from 0 the first job waits until a model is loaded")
    max: int = Field(ge=1, description="Of replicas")
    backlog_seconds: float = Field(
        default=60.0, gt=0, description="As many replicas as work off in this time all that runs and waits"
    )
    up_after_seconds: float = Field(default=5.0, ge=0, description="More are started when so long more were needed")
    down_after_seconds: float = Field(default=120.0, ge=0, description="Some are ended when so long fewer were needed")

    @model_validator(mode="after")
    def _ordered(self) -> "AutoscalingOptions":
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, more than max, {self.max}")
        return self


class SamplerOptions(Options):
    """The replicas that run the transformer and the VAE."""

    replicas: int = Field(default=1, ge=1, description="Processes, each with whole models; a fixed number of them")
    autoscaling: AutoscalingOptions | None = Field(default=None, description="In place of a fixed number")
    models: int = Field(
        default=1,
        ge=1,
        description="Models, or versions of them, that one replica holds at a time; each has its share of the memory "
        "for keys and values. A video of another one waits until one of them makes none",
    )
    num_cpus: float = Field(default=0.4, gt=0, description="That each reserves")
    num_gpus: float = Field(default=0.0, ge=0, description="That each reserves")
    device: str | None = Field(
        default=None, description="Torch's name of the device; the first GPU if num_gpus > 0, else the CPU"
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Of weights and activations")
    weights: Literal["plain", "int8"] = Field(
        default="plain", description="int8 keeps those of the transformer's blocks in 8 bits, a scale for each output"
    )
    offload: tuple[Literal["blocks", "vae"], ...] = Field(
        default=(),
        description="What stays in the host's memory: the transformer's blocks, each copied to the device for its part "
        "of a forward; the VAE, which then decodes on the CPU",
    )
    ranks: int = Field(
        default=1,
        ge=1,
        description="Processes of one replica, on one machine, that share every forward by sequence parallelism; with "
        "num_gpus, that are as many, each has one",
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of one replica; torch decides when left out"
    )
    max_sessions: int = Field(default=8, ge=1, description="Videos that one replica works on at the same time")
    tokens_per_step: int = Field(
        default=131072, ge=1, description="Tokens that one forward may hold; one video always fits"
    )
    cache_gib: float | None = Field(
        default=None,
        gt=0,
        description="Memory of one replica for keys and values; when left out 80 % of what a GPU has free beside the "
        "model, or half of the machine's memory shared by the replicas",
    )

    @property
    def most_replicas(self) -> int:
        """How many there may be at a time."""
        return self.autoscaling.max if self.autoscaling else self.replicas

    @model_validator(mode="after")
    def _one_number(self) -> "SamplerOptions":
        if self.autoscaling and "replicas" in self.model_fields_set:
            raise ValueError("replicas is a fixed number, autoscaling has bounds; give one of them")
        return self

    @model_validator(mode="after")
    def _a_gpu_for_each_rank(self) -> "SamplerOptions":
        if self.ranks > 1 and self.num_gpus not in (0, self.ranks):
            raise ValueError(f"num_gpus is {self.num_gpus:g}; {self.ranks} ranks take as many GPUs, or none")
        return self


class TextOptions(Options):
    """The replica of the text encoders."""

    num_cpus: float = Field(default=0.2, gt=0, description="That it reserves")
    num_gpus: float = Field(default=0.0, ge=0, description="That it reserves")
    cache_mib: int = Field(default=512, ge=0, description="Memory for the embeddings of the prompts used last")
    encoders: int = Field(
        default=1, ge=1, description="Text encoders held at a time; models that have the same ones share them"
    )


class RewriterOptions(Options):
    """A language model that writes prompts out, for requests with `rewrite_prompt`."""

    url: str = Field(pattern="^https?://", description="Of an OpenAI-compatible endpoint, as in http://host:8000/v1")
    model: str = Field(description="Its name there")
    api_key_env: str | None = Field(default=None, description="Environment variable that holds the key")
    instruction: str = Field(
        default="Rewrite the user's idea for a short video as one detailed caption of at most 100 words: subject, "
        "motion, scenery, light, camera. Keep everything the user asks for. Answer with the caption alone, in English.",
        description="What it is told before the prompt",
    )
    timeout_s: float = Field(default=30.0, gt=0, description="For one prompt")


class KeyLimits(Options):
    """What one API key may ask for; there is no limit where none is given."""

    jobs: int | None = Field(default=None, ge=1, description="Jobs that have not ended")
    requests_per_minute: int | None = Field(default=None, ge=1, description="Of any kind")
    streams: int | None = Field(default=None, ge=1, description="Connections that watch videos, or events about them")
    tokens_per_day: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that pass the transformer for the jobs of a UTC day, summed over denoising steps",
    )

    def over(self, general: "KeyLimits") -> "KeyLimits":
        """These, and the general ones where these say nothing."""
        return general.model_copy(update=self.model_dump(exclude_none=True))


class Limits(Options):
    """What one request, and all waiting ones, may ask for."""

    queue: int = Field(
        default=64, ge=1, description="Jobs that may wait; one more is answered with 429 and Retry-After"
    )
    pixels: int = Field(default=1024 * 1792, ge=1, description="Width times height")
    seconds: float = Field(default=60.0, gt=0, description="Length of a video, and of what an extension adds")
    prompt_characters: int = Field(default=4000, ge=1, le=32000, description="Of every prompt")
    upload_bytes: int = Field(default=32 * 1024**2, ge=1024, description="Of a request's body")
    upload_seconds: float = Field(default=60.0, gt=0, description="In which a request's body must have come")
    image_pixels: int = Field(default=50_000_000, ge=1, description="Of a picture that a video begins with")
    per_key: KeyLimits = Field(
        default=KeyLimits(jobs=16, requests_per_minute=600, streams=64),
        description="Of every key that has none of its own",
    )


class JudgeOptions(Options):
    """A hook that judges prompts or frames."""

    hook: str = Field(
        pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*|https?://.+)$",
        description="`module:name` of a callable that takes a prompt, or frames [T, H, W, 3] in uint8, and tells how "
        "bad they are, 0..1; or the URL of an OpenAI-compatible endpoint, whose /moderations is asked",
    )
    threshold: float = Field(default=0.5, ge=0, le=1, description="Of a callable: from here on it is refused")
    model: str | None = Field(default=None, description="That the endpoint is asked for")
    api_key_env: str | None = Field(default=None, description="Environment variable that holds the endpoint's key")
    timeout_s: float = Field(default=30.0, gt=0, description="For one judgement of an endpoint")


class SafetyOptions(Options):
    """What is judged before it is made or shown; a hook that fails lets nothing through."""

    prompts: JudgeOptions | None = None
    frames: JudgeOptions | None = Field(default=None, description="Of every unit, before anybody can see it")


class RemoteOptions(Options):
    """What users may let the endpoint ask of URLs that they name; nothing where this is left out."""

    images: bool = Field(default=False, description="Pictures: `input_reference.image_url` may be a URL")
    webhooks: bool = Field(default=False, description="Events: `webhook_url` is told when a video has ended")
    timeout_s: float = Field(default=10.0, gt=0, description="For one URL, with all its redirects")
    networks: tuple[str, ...] = Field(
        default=(), description="Addresses that are allowed though they aren't public, as in 10.1.0.0/16"
    )

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(each)) for each in networks)


class ModelOptions(Options):
    """A model that is served under a name."""

    folder: Location = Field(description="Model folder: what training exports, or an imported release")
    lora: Location | None = Field(
        default=None, description="Adapter's folder that is merged into it: `rayramid weights export --adapter`"
    )


def _folder_alone(value: object) -> object:
    return {"folder": value} if isinstance(value, str) else value


ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ServedModel = Annotated[ModelOptions, BeforeValidator(_folder_alone, json_schema_input_type=ModelOptions | Location)]


class ServeSpec(Options):
    """One endpoint with OpenAI's Videos API."""

    kind: Literal["serve"] = "serve"
    model: Location | None = Field(
        default=None, description="The one model folder: what training exports, or an imported release"
    )
    models: dict[ModelName, ServedModel] = Field(
        default={},
        description="Or several, by the names that clients ask for them: folders, or a folder with a `lora`. The first "
        "one answers who asks for none",
    )
    store: Location = Field(description="Folder or s3:// URL that holds jobs and their videos")
    name: ModelName | None = Field(default=None, description="What responses call `model`; its preset when left out")
    keys: Location | Literal[False] | None = Field(
        default=None,
        description="Folder or s3:// URL of the API keys; `access` below the store when left out. `off` lets everybody "
        "in who reaches the endpoint, and is possible only on a loopback host",
    )
    host: str = Field(default="127.0.0.1", description="Address that the endpoint listens at")
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free one")
    gateways: int = Field(
        default=1, ge=1, description="Processes that answer HTTP; each allows a key its share of requests and streams"
    )
    sampler: SamplerOptions = SamplerOptions()
    text: TextOptions = TextOptions()
    limits: Limits = Limits()
    rewriter: RewriterOptions | None = None
    remote: RemoteOptions = RemoteOptions()
    safety: SafetyOptions = SafetyOptions()
    origins: tuple[str, ...] = Field(
        default=(),
        description="Web pages of these origins, as in https://videos.example.com, may use the endpoint from browsers; "
        "none but its own when left out",
    )
    traces: Literal["otlp"] | Location | None = Field(
        default=None,
        description="Where OpenTelemetry's spans of requests go: `otlp` is the collector that "
        "OTEL_EXPORTER_OTLP_ENDPOINT names, a folder gets a file of JSON lines per process; nowhere when left out",
    )
    keep_hours: float | None = Field(
        default=None, gt=0, description="Ended jobs are deleted with their videos after so long; never when left out"
    )
    presigned_minutes: int | None = Field(
        default=None,
        ge=1,
        le=7 * 24 * 60,
        description="Give completed videos out by the S3 store's own URLs, valid for so long, not through the gateway",
    )

    @property
    def key_ring(self) -> str | None:
        """Where the API keys are; None when there are none."""
        if self.keys is False:
            return None
        return self.keys or storage.join(self.store, "access")

    @model_validator(mode="after")
    def _has_models(self) -> "ServeSpec":
        if (self.model is None) == (not self.models):
            raise ValueError("give `model`, one folder, or `models`, folders by name")
        if self.models and self.name is not None:
            raise ValueError("name is that of `model`; `models` have theirs")
        return self

    @model_validator(mode="after")
    def _closed(self) -> "ServeSpec":
        if self.keys is False and not is_loopback(self.host):
            raise ValueError(
                f"keys: off lets everybody in, so host must be loopback (127.0.0.1), not {self.host}; leave keys out, "
                "and make some by `rayramid keys create`"
            )
        if self.keys is False and self.remote.webhooks:
            raise ValueError("remote.webhooks: events are signed with the secret of an API key, and keys are off")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
