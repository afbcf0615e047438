"""Looks at a spec before it runs: opens what it reads, plans a sample of every phase, refuses what can't be trained."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from statistics import fmean

from rayramid.models.dit.config import DiTConfig
from rayramid.models.errors import UserError
from rayramid.models.flops import parameter_count
from rayramid.models.history import Segment
from rayramid.models.memory import PackSize, activation_bytes, pack_size
from rayramid.models.sequence import training_segments
from rayramid.pipelines.buckets import SPATIAL_RATIO
from rayramid.platform.training.census import Part, take_census
from rayramid.platform.training.data import Datasets, index_of, open_datasets
from rayramid.platform.training.dry_run import BucketReport, DryRun, PhaseReport
from rayramid.platform.training.export import recommended
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.index import Index
from rayramid.platform.training.learner import check_finest, weights_by_level
from rayramid.platform.training.mesh import check_parallel
from rayramid.platform.training.model import configure, origin_of
from rayramid.platform.training.plan import WINDOW_STEPS, Bin, check_budget, deal, steps
from rayramid.platform.training.rank_memory import formats_of, rank_memory
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.spec.train import TrainSpec
from rayramid.platform.training.visits import image_share

# Steps that stand for a whole phase, a window of the plan; and how many of their packs are looked at for memory.
SAMPLE = WINDOW_STEPS
LARGEST = 8


def examine(spec: TrainSpec, *, outlines: bool = False) -> DryRun:
    """Opens what the spec reads and plans a sample of every phase.

    Args:
        spec: with dataset versions fixed.
        outlines: whether a dataset that is missing may be an outline.

    Raises:
        UserError: no clips to read, clips larger than a bin, datasets that don't fit the model or each other.
    """
    config, _, started = configure(spec.model)
    recommended(spec.sampling, started, config.levels)
    # An elastic run may have any number of workers in between.
    for world in range(spec.workers.least, spec.workers.most + 1):
        check_parallel(spec.parallel, world, config.heads)
    datasets = open_datasets(spec, origin_of(spec.model), outlines=outlines)
    reports, packs, held_out = [], [], 0
    for phase in spec.phases:
        _check_buckets(phase, datasets)
        weights_by_level(phase, config.levels)
        check_finest(phase, config.levels)
        measure = measure_for(config, phase.finest_level)
        index = index_of(phase, datasets, measure, config.frames_per_unit)
        image_share(index, phase)
        check_budget(index, phase)
        sample = list(islice(steps(index, phase, spec.seed), min(SAMPLE, phase.steps)))
        reports.append(_report(index, phase, sample, spec, config.levels))
        packs.append(_largest_pack(sample, spec, config))
        held_out += index_of(phase, datasets, measure, config.frames_per_unit, split="val").clips
    readers = spec.workers.least // spec.parallel.sequence
    memory = [
        rank_memory(config, spec, pack, -(-phase.bins_per_step // readers))
        for pack, phase in zip(packs, spec.phases, strict=True)
    ]
    return DryRun(
        output=spec.output,
        parameters=parameter_count(config),
        steps=spec.steps,
        held_out=held_out,
        outlined=datasets.outlined,
        workers=spec.workers.most,
        tflops=spec.workers.tflops,
        memory=max(memory, key=lambda each: each.device),
        phases=tuple(reports),
    )


def _check_buckets(phase: Phase, datasets: Datasets) -> None:
    there = {name for root in phase.data for name in datasets.of(root).buckets}
    for bucket in phase.buckets or ():
        if bucket not in there:
            close = get_close_matches(bucket, there, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(there))}"
            raise UserError(f"phase '{phase.name}': none of its datasets has the bucket {bucket}; {hint}")


def _report(index: Index, phase: Phase, sample: Sequence[list[Bin]], spec: TrainSpec, levels: int) -> PhaseReport:
    census = take_census(index, phase)
    tokens = fmean(sum(b.tokens for b in bins) for bins in sample)
    flops = tokens * census.flops_per_token
    steps_per_epoch = census.epoch_tokens / tokens
    readers = spec.workers.most // spec.parallel.sequence
    costs = [[sum(b.flops for b in mine) for mine in deal(bins, readers)] for bins in sample]
    balance = fmean(fmean(cost) / max(cost) for cost in costs)
    hours = None
    if spec.workers.tflops is not None:
        again = 4 / 3 if spec.memory.recompute == "full" else 1
        rate = spec.workers.tflops * 1e12 * spec.workers.most * balance
        hours = phase.steps * flops * again / rate / 3600
    return PhaseReport(
        name=phase.name,
        videos=sum(table.clips for table in index.videos),
        images=sum(table.clips for table in index.images),
        steps=phase.steps,
        tokens_per_step=tokens,
        targets_per_step=phase.stages(levels) * tokens * census.units_per_token,
        flops_per_step=flops,
        image_share=sum(part.share for part in census.parts if part.kind == "image"),
        fill=tokens / (phase.bins_per_step * phase.tokens_per_bin),
        balance=balance,
        steps_per_epoch=steps_per_epoch,
        epochs=phase.steps / steps_per_epoch,
        hours=hours,
        buckets=tuple(_bucket(part, steps_per_epoch) for part in census.parts),
    )


def _bucket(part: Part, steps_per_epoch: float) -> BucketReport:
    t, h, w = part.grid
    return BucketReport(
        bucket=f"{h * SPATIAL_RATIO}x{w * SPATIAL_RATIO}x{t}",
        clips=part.clips,
        tokens_per_visit=part.tokens,
        token_share=part.share,
        steps_per_epoch=steps_per_epoch * part.share,
    )


def _largest_pack(sample: Sequence[list[Bin]], spec: TrainSpec, config: DiTConfig) -> PackSize:
    """The size of the pack with the largest activations, among those with the most tokens."""
    formats = formats_of(spec)
    packs = sorted((b for bins in sample for b in bins), key=lambda b: -b.tokens)[:LARGEST]
    sizes = [pack_size(config, _segments(packed, config), gathers=formats.gathers) for packed in packs]
    return max(sizes, key=lambda size: activation_bytes(config, size, spec.memory.recompute, formats))


def _segments(packed: Bin, config: DiTConfig) -> list[Segment]:
    """Of all items, as rows of one pack."""
    segments: list[Segment] = []
    for item in packed.items:
        first = segments[-1].clip + 1 if segments else 0
        for segment in training_segments(config, item.grid, item.text, item.first_unit, item.units, item.finest):
            segments.append(replace(segment, clip=first + segment.clip))
    return segments
