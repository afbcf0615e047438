"""What a run would do: sizes, what a step reads, memory, how long it takes."""

from dataclasses import dataclass

from rayramid.models.cost_report import table, with_prefix
from rayramid.platform.training.rank_memory import RankMemory


@dataclass(frozen=True)
class BucketReport:
    """What a phase reads of one bucket.

    Attributes:
        bucket: its name.
        clips: to draw from.
        tokens_per_visit: mean.
        token_share: of the phase's tokens.
        steps_per_epoch: the steps of an epoch that its tokens would fill.
    """

    bucket: str
    clips: int
    tokens_per_visit: float
    token_share: float
    steps_per_epoch: float


@dataclass(frozen=True)
class PhaseReport:
    """One phase: what it reads counted from the index, fill and balance from a sample of its steps.

    Attributes:
        name: of the phase.
        videos: clips to draw from.
        images: images to draw from.
        steps: optimiser steps.
        tokens_per_step: mean.
        targets_per_step: noisy units (one per level) with a loss, mean.
        flops_per_step: operations of forward and backward, nothing recomputed, mean.
        image_share: of the tokens.
        fill: tokens by token budget.
        balance: mean by largest cost of a rank.
        steps_per_epoch: one pass over the videos (over the images, without videos).
        epochs: in the whole phase.
        hours: of the whole phase, by what the spec's workers sustain; None where it doesn't say.
        buckets: what it reads of each.
    """

    name: str
    videos: int
    images: int
    steps: int
    tokens_per_step: float
    targets_per_step: float
    flops_per_step: float
    image_share: float
    fill: float
    balance: float
    steps_per_epoch: float
    epochs: float
    hours: float | None
    buckets: tuple[BucketReport, ...]


@dataclass(frozen=True)
class DryRun:
    """What a spec would do.

    Attributes:
        output: where.
        parameters: of the DiT.
        steps: of all phases.
        held_out: clips for validation, over all phases' data.
        outlined: roots that have an outline instead of a dataset.
        workers: how many.
        tflops: what each sustains, as the spec says.
        memory: of a worker, at the largest pack of the samples.
        phases: in order.
    """

    output: str
    parameters: int
    steps: int
    held_out: int
    outlined: tuple[str, ...]
    workers: int
    tflops: float | None
    memory: RankMemory
    phases: tuple[PhaseReport, ...]

    @property
    def hours(self) -> float | None:
        """Of all phases, if the spec says what a worker sustains."""
        hours = [phase.hours for phase in self.phases]
        return None if None in hours else sum(hour for hour in hours if hour is not None)

    def text(self) -> str:
        """For people: every number with its unit."""
        lines = [
            f"output      {self.output}",
            f"parameters  {self.parameters:,}",
            f"steps       {self.steps:,}",
            f"held out    {self.held_out:,} clips",
        ]
        if self.outlined:
            lines.append(f"outlines    {', '.join(self.outlined)}: not there yet, counted as the spec outlines them")
        parts = ["\n".join(lines), _memory_text(self.memory), *(_phase_text(phase, self) for phase in self.phases)]
        if self.hours is not None:
            parts.append(f"In all {_hours(self.hours, self.workers)} at {self.tflops:g} TFLOP/s a worker")
        return "\n\n".join(parts)


def _memory_text(memory: RankMemory) -> str:
    where = "host" if memory.offloaded else ""
    rows = [
        ["parameters", with_prefix(memory.parameters, "B"), where],
        ["gradients", with_prefix(memory.gradients, "B"), where],
        ["optimiser", with_prefix(memory.optimizer, "B"), where],
        ["moving average", with_prefix(memory.average, "B"), where],
        ["weights in use", with_prefix(memory.in_use, "B"), ""],
        ["activations", with_prefix(memory.activations, "B"), ""],
        ["on the device", with_prefix(memory.device, "B"), ""],
    ]
    return table(["Memory of a worker", "at most", ""], rows)


def _phase_text(phase: PhaseReport, run: DryRun) -> str:
    lines = [
        f"Phase {phase.name}: {phase.videos:,} videos, {phase.images:,} images, {phase.steps:,} steps",
        f"a step reads {phase.tokens_per_step:,.0f} tokens with {phase.targets_per_step:,.0f} targets "
        f"({phase.image_share:.1%} of the tokens are images) and takes {with_prefix(phase.flops_per_step, 'FLOP')}",
        f"bins are {phase.fill:.1%} full, workers {phase.balance:.1%} busy",
        f"an epoch is {phase.steps_per_epoch:,.1f} steps, the phase {phase.epochs:,.2f} epochs",
    ]
    if phase.hours is not None:
        seconds = phase.hours * 3600 / phase.steps
        lines.append(f"a step takes {seconds:.2f} s, the phase {_hours(phase.hours, run.workers)}")
    rows = [
        [
            bucket.bucket,
            f"{bucket.clips:,}",
            f"{bucket.tokens_per_visit:,.0f}",
            f"{bucket.token_share:.1%}",
            f"{bucket.steps_per_epoch:,.1f}",
        ]
        for bucket in phase.buckets
    ]
    lines.append(table(["bucket", "clips", "tokens a visit", "of all tokens", "steps an epoch"], rows))
    return "\n  ".join("\n".join(lines).split("\n"))


def _hours(hours: float, workers: int) -> str:
    if hours < 1:
        return f"{hours * 60:,.1f} minutes"
    return f"{hours:,.1f} hours, {hours * workers:,.0f} worker hours"
