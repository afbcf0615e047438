"""What a run would do, without doing it: sizes, what a step reads, how long an epoch is."""

from dataclasses import dataclass
from itertools import islice
from statistics import fmean

import torch

from rayramid.models.dit.model import DiT
from rayramid.platform.training.data import index_of, open_datasets
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.index import Index
from rayramid.platform.training.learner import weights_by_level
from rayramid.platform.training.mesh import check_parallel
from rayramid.platform.training.model import configure, origin_of
from rayramid.platform.training.plan import check_budget, deal, image_share, steps
from rayramid.platform.training.spec import Phase, TrainSpec

# Steps that stand for a whole phase.
SAMPLE = 32


@dataclass(frozen=True)
class PhaseReport:
    """One phase, from a sample of its steps.

    Attributes:
        name: of the phase.
        videos: clips to draw from.
        images: images to draw from.
        steps: optimiser steps.
        tokens_per_step: mean over the sample.
        targets_per_step: noisy units (one per level) with a loss, mean.
        image_share: of the tokens.
        fill: tokens by token budget.
        balance: mean by largest cost of a rank.
        steps_per_epoch: one pass over the videos (over the images, without videos).
        epochs: in the whole phase.
    """

    name: str
    videos: int
    images: int
    steps: int
    tokens_per_step: float
    targets_per_step: float
    image_share: float
    fill: float
    balance: float
    steps_per_epoch: float
    epochs: float


@dataclass(frozen=True)
class DryRun:
    """What a spec would do.

    Attributes:
        output: where.
        parameters: of the DiT.
        steps: of all phases.
        held_out: clips for validation, over all phases' data.
        phases: in order.
    """

    output: str
    parameters: int
    steps: int
    held_out: int
    phases: tuple[PhaseReport, ...]

    def text(self) -> str:
        """For people."""
        lines = [
            f"output      {self.output}",
            f"parameters  {self.parameters:,}",
            f"steps       {self.steps:,}",
            f"held out    {self.held_out:,} clips",
        ]
        for phase in self.phases:
            lines += [
                f"phase {phase.name}: {phase.videos:,} videos, {phase.images:,} images, {phase.steps:,} steps",
                f"  a step reads {phase.tokens_per_step:,.0f} tokens with {phase.targets_per_step:,.0f} targets "
                f"({phase.image_share:.1%} of the tokens are images)",
                f"  bins are {phase.fill:.1%} full, workers {phase.balance:.1%} busy",
                f"  an epoch is {phase.steps_per_epoch:,.1f} steps, the phase {phase.epochs:,.2f} epochs",
            ]
        return "\n".join(lines)


def examine(spec: TrainSpec) -> DryRun:
    """Opens what the spec reads and plans a sample of every phase.

    Raises:
        UserError: no clips to read, clips larger than a bin, datasets that don't fit the model or each other.
    """
    config, _, _ = configure(spec.model)
    # An elastic run may have any number of workers in between.
    for world in range(spec.workers.least, spec.workers.most + 1):
        check_parallel(spec.parallel, world, config.heads)
    datasets = open_datasets(spec, origin_of(spec.model))
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in DiT(config).parameters())
    measure = measure_for(config)
    reports, held_out = [], 0
    for phase in spec.phases:
        index = index_of(phase, datasets, measure, config.frames_per_unit)
        reports.append(_report(index, phase, spec, config.levels))
        held_out += index_of(phase, datasets, measure, config.frames_per_unit, split="val").clips
    return DryRun(spec.output, parameters, spec.steps, held_out, tuple(reports))


def _report(index: Index, phase: Phase, spec: TrainSpec, levels: int) -> PhaseReport:
    weights_by_level(phase, levels)
    image_share(index, phase)
    check_budget(index, phase)
    sample = list(islice(steps(index, phase, spec.seed), min(SAMPLE, phase.steps)))
    images = {table.root: set(table.rows) for table in index.images}
    tokens = [sum(b.tokens for b in bins) for bins in sample]
    visits = [item for bins in sample for b in bins for item in b.items]
    image_visits = [item for item in visits if item.row in images.get(item.root, ())]
    leading = len(visits) - len(image_visits) if index.videos else len(image_visits)
    clips = sum(map(len, index.videos or index.images))
    steps_per_epoch = clips / (leading / len(sample))
    ranks = range(spec.workers.most // spec.parallel.sequence)
    costs = [[sum(b.flops for b in deal(bins, len(ranks), rank)) for rank in ranks] for bins in sample]
    return PhaseReport(
        name=phase.name,
        videos=sum(map(len, index.videos)),
        images=sum(map(len, index.images)),
        steps=phase.steps,
        tokens_per_step=fmean(tokens),
        targets_per_step=fmean(levels * sum(b.units for b in bins) for bins in sample),
        image_share=sum(item.size.tokens for item in image_visits) / sum(tokens),
        fill=fmean(tokens) / (phase.bins_per_step * phase.tokens_per_bin),
        balance=fmean(fmean(cost) / max(cost) for cost in costs),
        steps_per_epoch=steps_per_epoch,
        epochs=phase.steps / steps_per_epoch,
    )
