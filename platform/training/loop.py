"""The training loop of one rank: read, learn, tell, save. Knows nothing of Ray."""

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from rayramid.models import storage
from rayramid.models.checkpoint import git_revision
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.data import index_of, open_datasets
from rayramid.platform.training.feed import Reader, Share, feed, my_bins, normaliser
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.learner import Learner
from rayramid.platform.training.meter import Meter
from rayramid.platform.training.metrics import Metrics
from rayramid.platform.training.optimizer import learning_rate
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.spec import Phase, TrainSpec
from rayramid.platform.training.tally import Losses, Tally
from rayramid.platform.training.validation import SEED, held_out

log = logging.getLogger(__name__)

# Called on every rank after each line of metrics, with the step and the line.
Report = Callable[[int, Mapping[str, Any]], None]


class Run:
    """One rank's part of a run: what learns and everything around it."""

    def __init__(self, spec: TrainSpec, ranks: Ranks) -> None:
        self.spec, self.ranks = spec, ranks
        self.learner = Learner(spec, ranks)
        self.config, self.state = self.learner.model.config, self.learner.state
        self.measure = measure_for(self.config)
        self.datasets = open_datasets(spec)
        self.reader = Reader(
            self.datasets,
            normaliser(self.datasets.first.vae_url),
            self.config.frames_per_unit,
            self.learner.precision.weights,
        )
        self.folder = storage.join(spec.output, "checkpoints")

    def train(self, report: Report) -> None:
        """Trains from the newest checkpoint to the end."""
        self.resume()
        if self.state.step == self.spec.steps:
            return
        attempt = self.ranks.agree(uuid.uuid4().hex[:12])
        metrics = Metrics(self.spec.output, self.state.step) if self.ranks.is_first else None
        tally, meter = Tally(), Meter()
        for phase, local, share in self.shares(self.state.step):
            began = time.perf_counter()
            norm = self.learner.step(phase, local, share, tally)
            meter.add(share, norm, time.perf_counter() - began)
            step, last = self.state.step, self.state.step == self.spec.steps
            saves = last or step % self.spec.checkpoints.every == 0
            # A line at every checkpoint, so that what follows it is averaged alike after a restart.
            if saves or step % self.spec.log_every == 0:
                losses = tally.gather(self.ranks)
                record = {
                    "phase": phase.name,
                    "loss": losses.mean,
                    "learning_rate": learning_rate(phase, local),
                    "skipped": self.state.skipped,
                    **meter.gather(self.ranks),
                    "stages": losses.table,
                }
                if metrics:
                    metrics.write(step, record)
                report(step, record)
            if last or step % self.spec.validation.every == 0:
                held = self.validate(phase)
                if metrics and held is not None:
                    metrics.write(step, {"validation_loss": held.mean, "validation_stages": held.table})
            if saves:
                if metrics:
                    metrics.flush()
                self.save(attempt)
        if metrics:
            metrics.close()

    def shares(self, first: int) -> Iterator[tuple[Phase, int, Share]]:
        """Phase, step within it, and this rank's share, for every step of the run from `first` on."""
        begin = 0
        for phase in self.spec.phases:
            if begin + phase.steps > first:
                index = index_of(phase, self.datasets, self.measure, self.config.frames_per_unit)
                local = max(first - begin, 0)
                world, rank = self.ranks.world, self.ranks.rank
                planned = feed(self.reader, index, phase, self.spec.seed, first=local, world=world, rank=rank)
                for step, share in enumerate(planned, local):
                    yield phase, step, share
            begin += phase.steps

    @torch.no_grad()
    def validate(self, phase: Phase) -> Losses | None:
        """The averaged weights' loss on held-out clips; None where a phase has none."""
        frames_per_unit = self.config.frames_per_unit
        index = index_of(phase, self.datasets, self.measure, frames_per_unit, split="val")
        bins = held_out(index, phase, self.spec.validation.clips)
        if not bins:
            return None
        mine, weights = my_bins(bins, self.ranks.world, self.ranks.rank)
        tally = Tally()
        with self.state.ema.applied():
            for packed, weight in zip(mine, weights, strict=True):
                loss = self.learner.loss(tuple(self.reader.read(item, phase) for item in packed.items), phase, SEED)
                if weight:
                    tally.add(loss)
        return tally.gather(self.ranks)

    def resume(self) -> None:
        """Takes over the newest checkpoint, if there is one."""
        newest = self.ranks.agree(checkpoints.latest(self.folder) if self.ranks.is_first else None)
        if newest is None:
            return
        tensors = self.state.tensors()
        checkpoints.load(self.folder, newest, tensors, alone=self.ranks.world == 1)
        self.state.restore(tensors, newest.step, newest.skipped)
        log.info("resumed", extra={"step": newest.step, "workers_before": newest.workers})

    def save(self, attempt: str) -> None:
        """Commits a checkpoint and removes what need not stay."""
        checkpoints.save(
            self.folder,
            self.state.tensors(),
            self.state.step,
            skipped=self.state.skipped,
            attempt=attempt,
            git_revision=git_revision(),
            ranks=self.ranks,
        )
        if self.ranks.is_first:
            checkpoints.prune(self.folder, self.spec.checkpoints.keep_last, self.spec.checkpoints.keep_every)
        self.ranks.barrier()


def run(spec: TrainSpec, ranks: Ranks, report: Report) -> None:
    """Trains this rank's part of `spec` to its end.

    Args:
        spec: with all dataset versions fixed.
        ranks: the processes of the run.
        report: called on every rank after each line of metrics.
    """
    Run(spec, ranks).train(report)
