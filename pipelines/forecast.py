"""What a run would give and take, predicted from a random sample of its sources that is done and thrown away."""

import math
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import curate
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.identity import digest
from rayramid.pipelines.receipts import read_receipts
from rayramid.pipelines.sources import list_sources
from rayramid.pipelines.spec import JOBS, DataSpec

# Of a normal distribution, the half-width of the interval that holds 95 %.
Z95 = 1.96


@dataclass(frozen=True)
class JobForecast:
    """A job over the whole corpus: its input rows, and hours of one worker, of GPUs, and of the clock."""

    job: str
    inputs: int
    worker_hours: float
    gpu_hours: float
    hours: float


@dataclass(frozen=True)
class Forecast:
    """The whole corpus, as its sample says.

    Attributes:
        sources: in all.
        sampled: how many of them were done.
        clips: that will be kept.
        low: of the 95 % interval of `clips`, by how much sources differ.
        high: of the same.
        rejected: clips that a threshold takes out.
        failed: clips and sources.
        bytes: of latents and embeddings.
        buckets: kept clips of each.
        steps_per_epoch: of so many clips each.
        jobs: what each takes.
    """

    sources: int
    sampled: int
    clips: int
    low: int
    high: int
    rejected: int
    failed: int
    bytes: int
    buckets: Mapping[str, int]
    steps_per_epoch: int
    jobs: tuple[JobForecast, ...]

    def lines(self) -> list[str]:
        """For people."""
        jobs = [
            f"{job.job:<8} {job.inputs:>10} inputs {job.worker_hours:>10.2f} worker-hours"
            f" {job.gpu_hours:>10.2f} GPU-hours {job.hours:>10.2f} hours"
            for job in self.jobs
        ]
        return [
            f"sample   {self.sampled} of {self.sources} sources",
            *jobs,
            f"clips    {self.clips} kept (95 %: {self.low} to {self.high})"
            f" + {self.rejected} rejected + {self.failed} failed",
            *(f"bucket   {name} {clips}" for name, clips in self.buckets.items()),
            f"bytes    {self.bytes / 1e9:.3f} GB of latents and embeddings",
            f"epoch    {self.steps_per_epoch} steps",
        ]

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def forecast(spec: DataSpec, sample: int, clips_per_step: int, on_progress: curate.Progress | None = None) -> Forecast:
    """Do a sample of so many sources below `<root>/_forecast`, multiply, delete it. Expects Ray to be initialised.

    Raises:
        UserError: nothing of the sample would be kept, or an epoch would be less than a step.
    """
    sources = list_sources(spec.sources, spec.split.val)
    chosen = random_sample(sources, sample)
    times = sources.num_rows / chosen.num_rows
    root = storage.join(spec.root, "_forecast", uuid.uuid4().hex[:12])
    try:
        summary = curate.run(spec.model_copy(update={"root": root}), on_progress=on_progress, sources=chosen)
        if summary.version is None:
            raise UserError(
                f"{spec.root}: of {chosen.num_rows} sampled sources nothing is kept"
                f" ({summary.rejected} rejected, {summary.failed} failed); look at the thresholds under `keep`"
            )
        found = _multiplied(spec, summary, LatentDataset.open(root), chosen, times, clips_per_step)
    finally:
        storage.delete_tree(root)
    if found.steps_per_epoch == 0:
        raise UserError(f"{spec.root}: some {found.clips} clips will be kept, less than a step of {clips_per_step}")
    return found


def random_sample(sources: pa.Table, size: int) -> pa.Table:
    """The same one whenever the sources are the same, whatever their order."""
    order = np.argsort([digest("sample", source_id) for source_id in sources["source_id"].to_pylist()])
    return sources.take(np.sort(order[:size]))


def interval(counts: NDArray[np.int64], times: float) -> tuple[int, int]:
    """The 95 % interval of a sum over `times` as many sources, by the spread of these `counts` per source."""
    total = counts.sum() * times
    if times <= 1 or len(counts) < 2:
        return round(total), round(total)
    # All that were sampled are certain: only the others spread.
    error = Z95 * counts.std(ddof=1) * math.sqrt(len(counts)) * math.sqrt(times * (times - 1))
    return max(round(counts.sum()), round(total - error)), round(total + error)


def _multiplied(
    spec: DataSpec,
    summary: curate.Summary,
    dataset: LatentDataset,
    chosen: pa.Table,
    times: float,
    clips_per_step: int,
) -> Forecast:
    kept_of = dataset.index["source"].to_pylist()
    counts = np.array([kept_of.count(source_id) for source_id in chosen["source_id"].to_pylist()])
    low, high = interval(counts, times)
    jobs, bytes_written = [], 0
    for job, ledger in zip(JOBS, summary.ledgers, strict=True):
        receipts = read_receipts(summary.root, job, lambda receipt: (receipt.seconds, receipt.bytes)).values()
        hours = times * sum(seconds for seconds, _ in receipts) / 3600
        workers = spec.workers.of(job)
        jobs.append(JobForecast(job, round(ledger.inputs * times), hours, hours * workers.gpus, hours / workers.count))
        if job in ("embed", "encode"):
            bytes_written += sum(size for _, size in receipts)
    clips = round(summary.kept * times)
    return Forecast(
        sources=round(chosen.num_rows * times),
        sampled=chosen.num_rows,
        clips=clips,
        low=low,
        high=high,
        rejected=round(summary.rejected * times),
        failed=round(summary.failed * times),
        bytes=round(bytes_written * times),
        buckets={name: round(count * times) for name, count in dataset.buckets.items()},
        steps_per_epoch=clips // clips_per_step,
        jobs=tuple(jobs),
    )
