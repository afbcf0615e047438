"""How any run goes: steps, a line of metrics now and then, validation, checkpoints, and on from the newest one.

What a step is, a subclass says. Knows nothing of Ray.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any, Generic, Literal, TypeVar

from rayramid.models import storage
from rayramid.models.checkpoint import git_revision
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.checkpoint import Checkpoint
from rayramid.platform.training.late import Beside, write_late
from rayramid.platform.training.metrics import open_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.saver import Saver
from rayramid.platform.training.spec.run import RunSpec
from rayramid.platform.training.state import TrainState

log = logging.getLogger(__name__)

# Called on every rank after each line of metrics, with the step and the line.
Report = Callable[[int, Mapping[str, Any]], None]

# Asked on every rank after each step, and the same for all: a checkpoint now, a checkpoint and the end, or nothing.
Wish = Callable[[], Literal["save", "stop", ""]]

Work = TypeVar("Work")


class Course(ABC, Generic[Work]):
    """One rank's part of a run.

    Attributes:
        ranks: the processes of the run.
        state: all that a checkpoint holds.
        folder: where the checkpoints are.
        resumed: the checkpoint that the run went on from.
    """

    def __init__(self, spec: RunSpec, ranks: Ranks, state: TrainState) -> None:
        self.ranks, self.state = ranks, state
        self.folder = storage.join(spec.output, "checkpoints")
        self.resumed: Checkpoint | None = None
        self._spec, self._revision = spec, git_revision()

    @abstractmethod
    def work(self, first: int) -> Iterator[Work]:
        """This rank's part of every step of the run from `first` on."""

    @abstractmethod
    def advance(self, work: Work) -> None:
        """One optimiser step."""

    @abstractmethod
    def told(self, work: Work) -> dict[str, Any]:
        """A line of metrics, with `loss`, over the steps since the last one; `work` is of the newest. A collective."""

    @abstractmethod
    def examined(self, work: Work) -> dict[str, Any] | None:
        """A line of metrics from held-out data; None without any. A collective."""

    def train(self, report: Report, wish: Wish, beside: Beside) -> bool:
        """Trains from the newest checkpoint to the end; False when told to stop before."""
        spec = self._spec
        self.resume()
        if self.state.step == spec.steps:
            return True
        with (
            Saver(self.folder, spec.checkpoints, self.ranks, beside.committed) as saver,
            closing(open_metrics(spec, self.state.step)) if self.ranks.is_first else nullcontext() as metrics,
        ):
            for work in self.work(self.state.step):
                self.advance(work)
                step, last = self.state.step, self.state.step == spec.steps
                wished = wish()
                saves = last or wished != "" or step % spec.checkpoints.every == 0
                # A line at every checkpoint, so that what follows it is averaged alike after a restart.
                if saves or step % spec.log_every == 0:
                    record = self.told(work)
                    if metrics:
                        metrics.write(step, record)
                        write_late(metrics, beside.finished())
                    report(step, record)
                if last or step % spec.validation.every == 0:
                    held_out = self.examined(work)
                    if held_out is not None:
                        if metrics:
                            metrics.write(step, held_out)
                        report(step, held_out)
                if saves:
                    if metrics:
                        metrics.flush()
                    saver.begin(self.state.tensors(), self.position())
                if last or wished == "stop":
                    saver.finish()
                    break
        return self.state.step == spec.steps

    def resume(self) -> None:
        """Takes over the newest checkpoint, if there is one."""
        newest = self.ranks.agree(checkpoints.latest(self.folder) if self.ranks.is_first else None)
        if newest is None:
            return
        tensors = self.state.tensors()
        checkpoints.load(self.folder, newest, tensors, alone=self.ranks.world == 1)
        self.state.restore(tensors, newest.step, newest.skipped)
        self.resumed = newest
        log.info("resumed at step %d", newest.step, extra={"step": newest.step, "workers_before": newest.workers})

    def position(self) -> Checkpoint:
        """What a checkpoint of the present state says of itself."""
        return Checkpoint(
            step=self.state.step,
            skipped=self.state.skipped,
            spec=self._spec.model_dump(mode="json"),
            git_revision=self._revision,
            workers=self.ranks.world,
        )
