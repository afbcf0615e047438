"""The five jobs as work to be done: which items, named by what decides their result, and the recipe of the job.

Modules with heavy imports are loaded where the job is built, in the worker.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from rayramid.pipelines.buckets import Bucket
from rayramid.pipelines.encoders import Encoder, resolved
from rayramid.pipelines.identity import caption_id, digest
from rayramid.pipelines.job import Job, Recipe, Row
from rayramid.pipelines.latents import BYTES_PER_VALUE
from rayramid.pipelines.plan import Item
from rayramid.pipelines.sources import SourceFile
from rayramid.pipelines.spec import DataSpec, JobName, Score, Shots

# Rows of one shard at most, so that a shard takes minutes, not hours; latents are counted in bytes instead.
LARGEST = {"shots": 8, "score": 64, "caption": 1024, "embed": 256}
LATENT_SHARD_BYTES = 256 * 1024**2

LATENT_CHANNELS = 16


@dataclass(frozen=True)
class Work:
    """A job with its items; `largest` is the row limit of the shard that an item is in."""

    job: JobName
    items: Sequence[Item]
    recipe: Recipe
    largest: Callable[[Item], int]


def shots_work(spec: DataSpec, sources: Iterable[SourceFile]) -> Work:
    """Every source file is to be cut."""
    how = spec.shots.model_dump()
    items = [Item(digest("shots", how, source.source_id), asdict(source)) for source in sources]
    return _work("shots", items, partial(_shots_job, spec.shots, spec.decode.deadline_s))


def score_work(spec: DataSpec, clips: Iterable[Row]) -> Work:
    """Every clip is to be scored."""
    how = spec.score.model_dump()
    items = [Item(digest("score", how, clip["clip_id"]), clip) for clip in clips]
    return _work("score", items, partial(_score_job, spec.score, spec.decode.deadline_s))


def caption_work(spec: DataSpec, kept: Iterable[Row]) -> Work:
    """Every kept clip is to be captioned; its own caption, or the template and what fills it, is part of the name."""
    items = []
    for clip in kept:
        row = {**clip, "template": spec.caption.template}
        how = clip["source_caption"] or {"template": spec.caption.template, "name": clip["name"]}
        items.append(Item(digest("caption", how, clip["clip_id"]), row))
    return _work("caption", items, _caption_job)


def embed_work(root: str, captions: Iterable[str], text: Encoder) -> Work:
    """Every distinct caption is to be embedded, and always the empty one."""
    items = [
        Item(
            digest("embed", caption_id(caption), text.fingerprint),
            {"caption_id": caption_id(caption), "caption": caption},
        )
        for caption in sorted({"", *captions})
    ]
    return _work("embed", items, partial(_embed_job, resolved(root, text)))


def encode_work(spec: DataSpec, bucketed: Iterable[Row], vae: Encoder) -> Work:
    """Every kept clip is to be encoded; source, range, VAE, size, length, rate and crop are part of the name."""
    items = []
    for clip in bucketed:
        pixels = [clip["height"], clip["width"], clip["frames"], clip["fps"], "centre crop"]
        name = digest("latent", clip["clip_id"], vae.fingerprint, pixels)
        items.append(Item(name, {**clip, "latent_id": name}))
    recipe = partial(_encode_job, resolved(spec.root, vae), vae.fingerprint, spec.decode.deadline_s)
    return Work("encode", items, recipe, _latents_per_shard)


def bucketed(spec: DataSpec, clip: Row, bucket: Bucket) -> Row:
    """A clip as the encoder sees it: sizes and rate are the bucket's."""
    known = {name: clip[name] for name in ("clip_id", "source_id", "uri", "kind", "start_ms", "end_ms")}
    pixels = {"height": bucket.height, "width": bucket.width, "frames": bucket.frames, "fps": spec.encode.fps}
    return {**known, **pixels, "bucket": bucket.name}


def _work(job: JobName, items: Sequence[Item], recipe: Recipe) -> Work:
    return Work(job, items, recipe, lambda item: LARGEST[job])


def _latents_per_shard(item: Item) -> int:
    grid = Bucket(item.row["height"], item.row["width"], item.row["frames"]).grid
    return max(1, LATENT_SHARD_BYTES // (LATENT_CHANNELS * math.prod(grid) * BYTES_PER_VALUE))


def _shots_job(shots: Shots, deadline_s: float) -> Job:
    from rayramid.pipelines.shots import ShotsJob

    return ShotsJob(shots, deadline_s)


def _score_job(score: Score, deadline_s: float) -> Job:
    from rayramid.pipelines.score import ScoreJob

    return ScoreJob(score, deadline_s)


def _caption_job() -> Job:
    from rayramid.pipelines.caption import CaptionJob

    return CaptionJob()


def _embed_job(text_url: str) -> Job:
    from rayramid.pipelines.embed import EmbedJob

    return EmbedJob(text_url)


def _encode_job(vae_url: str, vae_fingerprint: str, deadline_s: float) -> Job:
    from rayramid.pipelines.encode import EncodeJob

    return EncodeJob(vae_url, vae_fingerprint, deadline_s)
