"""The training loop of one rank of a VAE: read clips, learn, tell, save. Knows nothing of Ray."""

import time
from collections.abc import Iterator
from typing import Any

from rayramid.platform.training.course import Course, Report, Wish
from rayramid.platform.training.late import Beside, NothingBeside
from rayramid.platform.training.optimizer import learning_rate
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.vae.clips import noted_clips, readable
from rayramid.platform.training.vae.export import export
from rayramid.platform.training.vae.feed import ClipReader, Frames, Share, feed
from rayramid.platform.training.vae.learner import Learner
from rayramid.platform.training.vae.spec import Phase, VAESpec
from rayramid.platform.training.vae.tally import Tally
from rayramid.platform.training.vae.validation import centre, examination, examine, summary

# Phase, step within it, and this rank's share.
Work = tuple[Phase, int, Share]


class Run(Course[Work]):
    """One rank's part of a run: what learns and everything around it."""

    def __init__(self, spec: VAESpec, ranks: Ranks) -> None:
        self.spec = spec
        self.learner = Learner(spec, ranks)
        super().__init__(spec, ranks, self.learner.state)
        self.reader = ClipReader(spec.decode, skip=spec.damaged_clips == "skip")
        self.tally = Tally()
        self._times: list[tuple[Share, float, float]] = []

    def work(self, first: int) -> Iterator[Work]:
        """Phase, step within it, and this rank's share, for every step of the run from `first` on."""
        begin = 0
        for phase in self.spec.phases:
            if begin + phase.steps > first:
                found = readable(noted_clips(self.spec, phase), phase, "train")
                local = max(first - begin, 0)
                world, rank = self.ranks.world, self.ranks.rank
                planned = feed(self.reader, found, phase, self.spec.seed, first=local, world=world, rank=rank)
                for step, share in enumerate(planned, local):
                    yield phase, step, share
            begin += phase.steps

    def advance(self, work: Work) -> None:
        """One optimiser step, timed."""
        phase, local, share = work
        began = time.perf_counter()
        norm = self.learner.step(phase, local, share, self.tally)
        self._times.append((share, norm, time.perf_counter() - began))

    def told(self, work: Work) -> dict[str, Any]:
        """Terms of the loss and speed since the last line."""
        phase, local, _ = work
        shares, norms, times = zip(*self._times, strict=True)
        self._times = []
        waited = sum(share.waited for share in shares)
        seconds = sum(times) + waited
        gathered = self.ranks.gather((waited, [file for share in shares for file in share.damaged]))
        damaged = [file for _, files in gathered for file in files]
        terms = self.tally.gather(self.ranks)
        return {
            "phase": phase.name,
            "loss": terms.pop("loss"),
            "learning_rate": learning_rate(phase, local),
            "skipped": self.state.skipped,
            "damaged": len(damaged),
            "damaged_files": sorted(set(damaged)),
            "gradient_norm": sum(norms) / len(norms),
            "frames_per_second": sum(share.frames for share in shares) / seconds,
            "seconds_per_step": seconds / len(shares),
            "wait_share": max(wait for wait, _ in gathered) / seconds,
            "terms": terms,
        }

    def examined(self, work: Work) -> dict[str, Any] | None:
        """Quality of the averaged weights on held-out clips."""
        return {"validation": self.quality(work[0])}

    def quality(self, phase: Phase) -> dict[str, Any]:
        """PSNR, SSIM and LPIPS of the averaged weights. A collective."""
        ratio = self.learner.vae.config.temporal_ratio
        chosen = examination(noted_clips(self.spec, phase), phase, self.spec.validation, ratio)
        mine = range(self.ranks.rank, len(chosen.clips), self.ranks.world)
        learner = self.learner

        def clips() -> Iterator[Frames]:
            for i in mine:
                clip = self.reader.whole(chosen.clips[i], phase, chosen.frames[i])
                if clip is not None:
                    yield centre(clip, phase)

        with self.state.ema.applied(), learner.precision.autocast(self.ranks.device):
            measures = examine(learner.vae, learner.perceptual, clips())
        return summary(measures, chosen.split, self.ranks)

    def finish(self) -> None:
        """Measures the averaged weights once more and exports them. A collective."""
        quality = self.quality(self.spec.phases[-1])
        with self.state.ema.applied(), self.learner.precision.autocast(self.ranks.device):
            export(self.spec, self.learner.vae, self.state.step, quality, self.ranks)
        self.ranks.barrier()


def run(spec: VAESpec, ranks: Ranks, report: Report, wish: Wish = lambda: "", beside: Beside | None = None) -> bool:
    """Trains this rank's part of `spec` to its end and exports the VAE; False when told to stop before.

    Args:
        spec: with its clips noted.
        ranks: the processes of the run.
        report: called on every rank after each line of metrics.
        wish: asked on every rank after each step.
        beside: what goes on beside the training; nothing when None.
    """
    course = Run(spec, ranks)
    finished = course.train(report, wish, beside or NothingBeside())
    if finished:
        course.finish()
    course.reader.close()
    return finished
