"""The data spec: where videos come from, how they are cut, scored, kept, captioned, embedded and encoded."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from rayramid.models import storage
from rayramid.pipelines.captioning.spec import Caption
from rayramid.pipelines.part import Part

Location = Annotated[str, AfterValidator(storage.absolute)]

JobName = Literal["shots", "score", "caption", "embed", "encode"]
JOBS: tuple[JobName, ...] = ("shots", "score", "caption", "embed", "encode")

# The DiT halves the latent (1/8 of a side) twice for its pyramid and once for its patches: 8 * 4 * 2.
SIDE_MULTIPLE = 64


class Sprites(Part):
    """Procedural clips whose truth is known, drawn wherever a job reads them; with `frames: 1` they are images."""

    clips: int = Field(ge=1, description="how many")
    seed: int = Field(default=0, description="of the world; clip `index` of a seed is the same on every machine")
    width: int = Field(default=128, description="in pixels")
    height: int = Field(default=128, description="in pixels")
    frames: int = Field(default=33, ge=1, description="of each clip")
    fps: float = Field(default=24.0, gt=0, description="frames a second")


class Source(Part):
    """One place where videos come from: exactly one of folder, manifest, tars, package, sprites."""

    folder: Location | None = Field(
        default=None,
        description="every video and image below a folder or URL, or those that a glob as a/**/*.mp4 names",
    )
    manifest: Location | None = Field(default=None, description="a list of videos: jsonl, csv or Parquet")
    format: Literal[
        "plain", "webvid", "openvid-1m", "panda-70m", "koala-36m", "open-sora", "finetrainers", "pyramid-flow"
    ] = Field(
        default="plain",
        description="of the manifest; plain has `video`, and may have `caption`, `licence`, `start_s`, `end_s`",
    )
    videos: Location | None = Field(default=None, description="where a manifest's files lie; default: beside it")
    tars: Location | None = Field(default=None, description="a WebDataset tar, or a folder of them")
    package: str | None = Field(default=None, description="the videos that an installed Python package brings")
    sprites: Sprites | None = None
    licence: str | None = Field(default=None, description="for all files that do not name their own")
    caption: str | None = Field(default=None, description="for all files that do not have their own")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        kinds = ("folder", "manifest", "tars", "package", "sprites")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a source is exactly one of {', '.join(kinds)}; got {given or 'none'}")
        if self.manifest is None and (self.videos is not None or self.format != "plain"):
            raise ValueError("format and videos are about a manifest")
        return self


class Shots(Part):
    """How sources are cut into single-shot clips. Times in seconds."""

    detector: Literal["pyscenedetect", "transnetv2", "none"] = Field(
        default="pyscenedetect", description="transnetv2 also finds dissolves (the extra `shots`); none cuts nothing"
    )
    threshold: float | None = Field(default=None, gt=0, description="default 27 for pyscenedetect, 0.5 for transnetv2")
    min_s: float = Field(default=1.0, ge=0, description="a shorter shot is left out")
    max_s: float = Field(default=10.0, ge=0.001, description="a longer shot becomes several clips")
    trim_s: float = Field(default=0.0, ge=0, description="cut off at both ends of a shot that borders on a cut")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_s > self.max_s:
            raise ValueError(f"min_s {self.min_s:g} is above max_s {self.max_s:g}")
        return self


class Score(Part):
    """The one low-resolution decode that all scores come from."""

    fps: float = Field(default=8.0, gt=0, description="frames a second that are looked at")
    side: int = Field(default=256, ge=32, description="the longer side in pixels; small text needs 640 or more")
    raft: Location | None = Field(
        default=None, description="weights of torchvision's raft_small for optical flow, instead of Farneback"
    )
    text: bool = Field(default=False, description="measure overlay text (the extra `ocr`)")
    nsfw: bool = Field(default=False, description="measure NSFW (the extra `nsfw`)")
    clip: Location | None = Field(
        default=None,
        description="folder of an open_clip model: embeddings, and how captions of sources and written ones fit",
    )
    aesthetics: Location | None = Field(default=None, description="LAION's linear head for the embeddings of `clip`")

    @model_validator(mode="after")
    def _head_needs_embeddings(self) -> Self:
        if self.aesthetics is not None and self.clip is None:
            raise ValueError("aesthetics needs clip: the head works on its embeddings")
        return self


def _quantile(value: float | str) -> float | str:
    if isinstance(value, str):
        found = re.fullmatch(r"quantile:(0?\.\d+|0|1|1\.0)", value)
        if found is None:
            raise ValueError(f"{value!r}: a threshold is a number or quantile:Q with Q from 0 to 1")
    return value


Threshold = Annotated[float | str, AfterValidator(_quantile)]


class Bound(Part):
    """A score is kept from `min` to `max`, each a number or `quantile:0.1` of the clips at hand."""

    min: Threshold | None = Field(default=None, description="kept from here on")
    max: Threshold | None = Field(default=None, description="kept up to here")


def _bound(score: str) -> Any:
    """A field that bounds this score, and does not unless the spec says so."""
    return Field(default=Bound(), description=score)


class Thresholds(Part):
    """What a clip's scores and its file must be, applied whenever scores are read: changing them decodes nothing."""

    duration_s: Bound = _bound("seconds; null for images")
    short_side: Bound = _bound("the shorter side of the file in pixels")
    aspect: Bound = _bound("width by height")
    fps: Bound = _bound("of the file; null for images")
    brightness: Bound = _bound("mean luma, 0 to 255")
    contrast: Bound = _bound("mean deviation of luma within frames")
    motion: Bound = _bound("mean optical flow in frame diagonals per second")
    zoom_pan: Bound = _bound("share of the flow that one zoom and one pan explain")
    blur: Bound = _bound("variance of the Laplacian; low is blurred")
    black: Bound = _bound("share of black frames")
    frozen: Bound = _bound("share of neighbouring frames without a difference")
    letterbox: Bound = _bound("share of the picture that black bars take")
    corner_mark: Bound = _bound("share of the worst corner that edges take which stay: logos, watermarks")
    text_area: Bound = _bound("share of the picture that text takes; needs `score.text`")
    nsfw: Bound = _bound("highest probability over frames; needs `score.nsfw`")
    aesthetics: Bound = _bound("LAION's score; needs `score.aesthetics`")
    text_fit: Bound = _bound("cosine of the clip's embedding and its source's caption's; needs `score.clip`")
    codecs: list[str] | None = Field(
        default=None, min_length=1, description="of video files, by ffmpeg's names as [h264, hevc, av1]; default: any"
    )

    @property
    def on_scores(self) -> bool:
        """Whether any score is bounded."""
        return any(getattr(self, name) != Bound() for name in SCORES)


# What the job `score` says of a clip in numbers.
SCORES = tuple(name for name, field in Thresholds.model_fields.items() if field.annotation is Bound)


class Keep(Thresholds):
    """Thresholds on clips and on their captions."""

    caption_fit: Bound = _bound("cosine of the clip's embedding and its written caption's; needs `score.clip`")


class Duplicates(Part):
    """Clips that show the same: only the best one is kept, one of the val split before one of train."""

    exact: bool = Field(default=False, description="equal pixels at the size of scoring, whatever the file")
    near_bits: int | None = Field(
        default=None, ge=0, le=256, description="differing bits of 256 in the perceptual hash; copies have up to 20"
    )
    semantic: float | None = Field(
        default=None, gt=0, le=1, description="cosine of the embeddings by score.clip, as 0.98"
    )
    prompts: Location | None = Field(
        default=None,
        description="a file of prompts, one a line, that models are judged by: no clip's caption is near one",
    )
    prompt_words: float = Field(
        default=0.75, gt=0, le=1, description="near is: so large a share of the words of both is in both"
    )

    @property
    def compared(self) -> bool:
        """Whether clips are compared with each other."""
        return self.exact or self.near_bits is not None or self.semantic is not None


class Embed(Part):
    """The text encoder: a URL of a `text/` folder, or `tiny`, a seeded one built once under the root."""

    text: Literal["tiny"] | Location = Field(default="tiny", description="`tiny`, or a `text/` folder")


def _size(value: str) -> str:
    found = re.fullmatch(r"(\d+)x(\d+)", value)
    if found is None:
        raise ValueError(f"{value!r}: a size is WIDTHxHEIGHT, as 640x384")
    if any(int(side) % SIDE_MULTIPLE or int(side) == 0 for side in found.groups()):
        raise ValueError(f"{value}: both sides must be multiples of {SIDE_MULTIPLE}")
    return value


def _length(value: int) -> int:
    if value < 1 or value % 8 != 1:
        raise ValueError(f"{value} frames: a length is 8k+1 frames (1, 9, 17, 25, …)")
    return value


class Encode(Part):
    """Which latents: the VAE, the buckets, the frame rate.

    A clip takes the size nearest to its aspect and the longest length that it fills. A size more than `max_upscale`
    times larger than the clip is not for it.
    """

    vae: Literal["pca"] | Location = Field(
        default="pca", description="a VAE folder, or `pca`: fitted once on the clips"
    )
    sizes: list[Annotated[str, AfterValidator(_size)]] = Field(
        default=["128x128"], min_length=1, description="in pixels, of which a clip takes the nearest to its aspect"
    )
    frames: list[Annotated[int, AfterValidator(_length)]] = Field(
        default=[1, 25], min_length=1, description="lengths, 8k + 1 each; a clip takes the longest that it fills"
    )
    fps: float = Field(default=24.0, gt=0, description="frames a second of every latent")
    max_upscale: float = Field(default=1.1, gt=0, description="a size more than so many times a clip's is not for it")


class Split(Part):
    """The share of sources (not clips) set aside for validation, by a hash of their name."""

    val: float = Field(default=0.05, ge=0, lt=1, description="the share of sources")


class Decode(Part):
    """Decoding runs in a child process that is killed when one answer takes longer than this."""

    deadline_s: float = Field(default=30.0, gt=0, description="for one answer")


class Workers(Part):
    """How many worker processes a job has, and what each reserves in the cluster."""

    count: int = Field(default=1, ge=1, description="processes")
    cpus: float = Field(default=0.5, gt=0, description="that each reserves")
    gpus: float = Field(default=0.0, ge=0, description="of each; a fraction shares one")


class JobWorkers(Part):
    """Workers per job."""

    shots: Workers = Workers()
    score: Workers = Workers()
    caption: Workers = Workers()
    embed: Workers = Workers()
    encode: Workers = Workers()

    def of(self, job: JobName) -> Workers:
        """The workers of one job."""
        workers: Workers = getattr(self, job)
        return workers


class DataSpec(Part):
    """Everything that turns videos into a latent dataset under `root`."""

    kind: Literal["data"] = "data"
    root: Location = Field(description="where the dataset is, with all that jobs commit on the way")
    sources: list[Source] = Field(min_length=1, description="where videos come from")
    shots: Shots = Shots()
    score: Score = Score()
    keep: Keep = Keep()
    duplicates: Duplicates = Duplicates()
    caption: Caption = Caption()
    embed: Embed = Embed()
    encode: Encode = Encode()
    split: Split = Split()
    decode: Decode = Decode()
    workers: JobWorkers = JobWorkers()

    @model_validator(mode="after")
    def _semantic_needs_embeddings(self) -> Self:
        if self.duplicates.semantic is not None and self.score.clip is None:
            raise ValueError("duplicates.semantic needs score.clip: it compares its embeddings")
        return self
