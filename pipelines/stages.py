"""The five jobs as work to be done: which items, named by what decides their result, and the recipe of the job.

Modules with heavy imports are loaded where the job is built, in the worker.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from rayramid.pipelines import tables
from rayramid.pipelines.buckets import Bucket
from rayramid.pipelines.captioning.spec import Caption
from rayramid.pipelines.encoders import Encoder, resolved
from rayramid.pipelines.identity import digest
from rayramid.pipelines.job import Job, Recipe
from rayramid.pipelines.latents import BYTES_PER_VALUE
from rayramid.pipelines.plan import Item
from rayramid.pipelines.spec import SCORES, DataSpec, JobName, Score, Shots

# Rows of one shard at most, so that a shard takes minutes, not hours; of latents also a number of bytes.
LARGEST = {"shots": 8, "score": 64, "caption": 1024, "embed": 256, "encode": 256}
LATENT_SHARD_BYTES = 256 * 1024**2

LATENT_CHANNELS = 16

_PLACE = {"row_group": pa.int32(), "row": pa.int32(), "offset": pa.int64(), "length": pa.int64(), "crc32": pa.int64()}


def _places(tensor: str, *parts: str) -> list[tuple[str, pa.DataType]]:
    return [(f"{tensor}_{part}", _PLACE[part]) for part in parts]


# What is read back of a job's results; the rest stays in its files.
RESULTS: Mapping[JobName, pa.Schema] = {
    "shots": pa.schema(
        [
            ("clip_id", pa.string()),
            ("source_id", pa.string()),
            ("start_ms", pa.int64()),
            ("end_ms", pa.int64()),
            ("fps", pa.float64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("codec", pa.string()),
        ]
    ),
    "score": pa.schema(
        [
            *((name, pa.float64()) for name in SCORES),
            ("content_hash", pa.string()),
            ("perceptual_hash", pa.string()),
            *_places("preview", "offset", "length"),
        ]
    ),
    "caption": pa.schema(
        [
            ("caption_id", pa.string()),
            ("caption", pa.large_string()),
            ("short_id", pa.string()),
            ("short", pa.large_string()),
            ("caption_fit", pa.float64()),
        ]
    ),
    "embed": pa.schema(
        [
            ("text_len", pa.int32()),
            *_places("tokens", "row_group", "row", "offset", "length", "crc32"),
            *_places("pooled", "offset", "length", "crc32"),
        ]
    ),
    "encode": pa.schema(
        [
            ("latent_id", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("frames", pa.int32()),
            ("fps", pa.float64()),
            ("latent_dtype", pa.string()),
            ("vae_fingerprint", pa.string()),
            *_places("latent", "row_group", "row", "offset", "length", "crc32"),
            *((f"{which}_{moment}", pa.float32()) for which in ("first", "later") for moment in ("mean", "std")),
        ]
    ),
}


@dataclass(frozen=True)
class Work:
    """A job with its items, `item_id` and what the job is given.

    Attributes:
        job: which.
        items: one row each.
        recipe: builds the job.
        largest: the row limit of an item's shard.
        columns: what is read back of the results.
    """

    job: JobName
    items: pa.Table
    recipe: Recipe
    largest: Callable[[Item], int]
    columns: pa.Schema


def shots_work(spec: DataSpec, sources: pa.Table) -> Work:
    """Every source file is to be cut."""
    how = spec.shots.model_dump()
    items = _named(sources, ["source_id"], lambda source_id: digest("shots", how, source_id))
    return _work("shots", items, partial(_shots_job, spec.shots, spec.decode.deadline_s))


def score_work(spec: DataSpec, clips: pa.Table) -> Work:
    """Every clip is to be scored."""
    # The scores' names too: clips that were scored before there was one of them are scored anew.
    how = {**spec.score.model_dump(), "scores": list(SCORES)}
    # How a caption fits is scored too, where there is a model for it.
    told = ["clip_id", "source_caption"] if spec.score.clip is not None else ["clip_id"]
    items = _named(clips, told, lambda *told: digest("score", how, *told))
    work = _work("score", items, partial(_score_job, spec.score, spec.decode.deadline_s))
    if spec.duplicates.semantic is None:
        return work
    return replace(work, columns=work.columns.append(pa.field("embedding", pa.binary())))


def caption_work(spec: DataSpec, kept: pa.Table) -> Work:
    """Every kept clip is to be captioned; who writes, or its own caption, or what fills the template is in the name."""
    template, writer = spec.caption.template, spec.caption.identity
    # What is written is compared with the clip, too, where there is a model for it.
    judge = spec.score.clip if writer is not None else None
    told_writer = {"writer": writer} if judge is None else {"writer": writer, "judge": judge}

    def name(clip_id: str, own: str | None, clip_name: str) -> str:
        told = own or {"template": template, "name": clip_name}
        return digest("caption", told if writer is None else told_writer, clip_id)

    items = _named(kept, ["clip_id", "source_caption", "name"], name)
    items = items.append_column("template", tables.constant(items, template, pa.string()))
    return _work("caption", items, partial(_caption_job, spec.caption, judge, spec.decode.deadline_s))


def embed_work(root: str, captions: pa.Table, text: Encoder) -> Work:
    """Every distinct caption is to be embedded."""
    items = _named(captions, ["caption_id"], lambda caption_id: digest("embed", caption_id, text.fingerprint))
    return _work("embed", items, partial(_embed_job, resolved(root, text)))


def encode_work(spec: DataSpec, bucketed: pa.Table, vae: Encoder) -> Work:
    """Every kept clip is to be encoded; source, range, VAE, size, length, rate and crop are part of the name."""

    def name(clip_id: str, *pixels: float) -> str:
        return digest("latent", clip_id, vae.fingerprint, [*pixels, "centre crop"])

    items = _named(bucketed, ["clip_id", "height", "width", "frames", "fps"], name)
    items = items.append_column("latent_id", items["item_id"])
    recipe = partial(_encode_job, resolved(spec.root, vae), vae.fingerprint, spec.decode.deadline_s)
    return Work("encode", items, recipe, _latents_per_shard, RESULTS["encode"])


def bucketed(spec: DataSpec, clips: pa.Table, verdicts: pa.Table) -> pa.Table:
    """Clips as the encoder sees them: sizes and rate are those of the bucket that each one's verdict gave it."""
    known = clips.select(["clip_id", "source_id", "uri", "kind", "start_ms", "end_ms"])
    for name in ("height", "width", "frames", "bucket"):
        known = known.append_column(name, verdicts[name])
    return known.append_column("fps", tables.constant(known, spec.encode.fps, pa.float64()))


def _named(table: pa.Table, columns: list[str], name: Callable[..., str]) -> pa.Table:
    return table.add_column(0, "item_id", tables.computed(table, columns, name, pa.string()))


def _work(job: JobName, items: pa.Table, recipe: Recipe) -> Work:
    return Work(job, items, recipe, lambda item: LARGEST[job], RESULTS[job])


def _latents_per_shard(item: Item) -> int:
    grid = Bucket(item.row["height"], item.row["width"], item.row["frames"]).grid
    fitting = LATENT_SHARD_BYTES // (LATENT_CHANNELS * math.prod(grid) * BYTES_PER_VALUE)
    return max(1, min(fitting, LARGEST["encode"]))


def _shots_job(shots: Shots, deadline_s: float) -> Job:
    from rayramid.pipelines.shots import ShotsJob

    return ShotsJob(shots, deadline_s)


def _score_job(score: Score, deadline_s: float) -> Job:
    from rayramid.pipelines.score import ScoreJob

    return ScoreJob(score, deadline_s)


def _caption_job(caption: Caption, judge: str | None, deadline_s: float) -> Job:
    from rayramid.pipelines.caption import CaptionJob

    return CaptionJob(caption, deadline_s, judge)


def _embed_job(text_url: str) -> Job:
    from rayramid.pipelines.embed import EmbedJob

    return EmbedJob(text_url)


def _encode_job(vae_url: str, vae_fingerprint: str, deadline_s: float) -> Job:
    from rayramid.pipelines.encode import EncodeJob

    return EncodeJob(vae_url, vae_fingerprint, deadline_s)
