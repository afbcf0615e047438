"""The training loop of one rank: read, learn, tell, save. Knows nothing of Ray."""

import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import torch

from rayramid.platform.training.checkpoint import Checkpoint
from rayramid.platform.training.course import Course, Report, Wish
from rayramid.platform.training.data import index_of, open_datasets
from rayramid.platform.training.feed import Damage, Reader, Share, feed, my_bins, normaliser
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.late import Beside, NothingBeside
from rayramid.platform.training.learner import Learner
from rayramid.platform.training.meter import Meter
from rayramid.platform.training.optimizer import learning_rate
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.plan import Bookmark
from rayramid.platform.training.spec.curriculum import Phase
from rayramid.platform.training.spec.train import TrainSpec
from rayramid.platform.training.tally import Losses, Tally
from rayramid.platform.training.validation import SEED, held_out

# Phase, step within it, and this rank's share.
Work = tuple[Phase, int, Share]


class Run(Course[Work]):
    """One rank's part of a run: what learns and everything around it."""

    def __init__(self, spec: TrainSpec, ranks: Ranks) -> None:
        self.spec = spec
        self.learner = Learner(spec, ranks)
        super().__init__(spec, ranks, self.learner.state)
        self.config, self.mesh = self.learner.model.config, self.learner.mesh
        self.measure = measure_for(self.config)
        self.datasets = open_datasets(spec)
        self.reader = Reader(
            self.datasets,
            normaliser(self.datasets.first.vae_url),
            self.config,
            self.learner.precision.weights,
            skip=spec.damaged_clips == "skip",
        )
        self.tally, self.meter = Tally(), Meter(ranks, spec.metrics.peak_tflops)
        self.bookmark: Bookmark | None = None
        self.damaged: list[Damage] = []
        self.visits: list[tuple[int, int, int]] = []

    def work(self, first: int) -> Iterator[Work]:
        """As `shares`."""
        return self.shares(first)

    def advance(self, work: Work) -> None:
        """One optimiser step, counted and timed."""
        phase, local, share = work
        began = time.perf_counter()
        norm = self.learner.step(phase, local, share, self.tally)
        self.meter.add(share, norm, time.perf_counter() - began)
        self.bookmark = share.bookmark
        self.damaged += share.damaged
        read = (clip for clips, weight in zip(share.bins, share.weights, strict=True) if weight for clip in clips)
        self.visits += ((clip.key, clip.first_unit, clip.units) for clip in read)

    def told(self, work: Work) -> dict[str, Any]:
        """Losses and speed since the last line."""
        phase, local, _ = work
        losses = self.tally.gather(self.ranks)
        return {
            "phase": phase.name,
            "loss": losses.mean,
            "learning_rate": learning_rate(phase, local),
            "skipped": self.state.skipped,
            **self.meter.gather(),
            **self.left_out(),
            "visits": self.visited(),
            **self.learner.noise.take(),
            "stages": losses.table,
            "noise_bins": losses.noise,
        }

    def examined(self, work: Work) -> dict[str, Any] | None:
        """The averaged weights' loss on held-out clips."""
        held = self.validate(work[0])
        if held is None:
            return None
        return {
            "validation_loss": held.mean,
            "validation_stages": held.table,
            "validation_noise_bins": held.noise,
        }

    def left_out(self) -> dict[str, Any]:
        """How many visits since the last line met a damaged file, and which files; nothing where they end the run."""
        if self.spec.damaged_clips == "stop":
            return {}
        damaged = self.mesh.gather(self.damaged)
        self.damaged = []
        return {"damaged": len(damaged), "damaged_files": sorted({each.file for each in damaged})}

    def visited(self) -> str:
        """A fingerprint of all that was read since the last line, with its noise: the same for any number of ranks."""
        read = sorted(self.mesh.gather(self.visits))
        self.visits = []
        return blake2b(repr(read).encode(), digest_size=8).hexdigest()

    def shares(self, first: int) -> Iterator[Work]:
        """Phase, step within it, and this rank's share, for every step of the run from `first` on."""
        known = Bookmark.from_json(self.resumed.plan) if self.resumed is not None and self.resumed.plan else None
        begin = 0
        for phase in self.spec.phases:
            if begin + phase.steps > first:
                index = index_of(
                    phase, self.datasets, measure_for(self.config, phase.finest_level), self.config.frames_per_unit
                )
                local = max(first - begin, 0)
                planned = feed(
                    self.reader,
                    index,
                    phase,
                    self.spec.seed,
                    first=local,
                    world=self.mesh.readers,
                    rank=self.mesh.reader,
                    bookmark=known,
                )
                for step, share in enumerate(planned, local):
                    yield phase, step, share
            begin += phase.steps

    def position(self) -> Checkpoint:
        """With a bookmark of the plan."""
        assert self.bookmark is not None, "a step was done"
        return replace(super().position(), plan=self.bookmark.to_json())

    @torch.no_grad()
    def validate(self, phase: Phase) -> Losses | None:
        """The averaged weights' loss on held-out clips; None where a phase has none."""
        frames_per_unit = self.config.frames_per_unit
        index = index_of(phase, self.datasets, self.measure, frames_per_unit, split="val")
        bins = held_out(index, phase, self.spec.validation.clips)
        if not bins:
            return None
        mine, weights = my_bins(bins, self.mesh.readers, self.mesh.reader)
        tally = Tally()
        with self.state.ema.applied():
            for packed, weight in zip(mine, weights, strict=True):
                clips, weight = self.reader.pack((self.reader.read(item, phase) for item in packed.items), weight)
                loss = self.learner.loss(clips, phase, SEED)
                if weight and self.mesh.leads:
                    tally.add(loss)
        return tally.gather(self.ranks)


def run(spec: TrainSpec, ranks: Ranks, report: Report, wish: Wish = lambda: "", beside: Beside | None = None) -> bool:
    """Trains this rank's part of `spec` to its end; False when told to stop before.

    Args:
        spec: with all dataset versions fixed.
        ranks: the processes of the run.
        report: called on every rank after each line of metrics.
        wish: asked on every rank after each step.
        beside: what goes on beside the training; nothing when None.
    """
    return Run(spec, ranks).train(report, wish, beside or NothingBeside())
