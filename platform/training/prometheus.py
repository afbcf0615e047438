"""What Ray's metrics say of a training run, told by the driver: it lives as long as the run, not as its workers."""

import time
from collections.abc import Callable, Mapping

from ray.util import metrics

from rayramid.models.metric import Metric, Unit
from rayramid.platform.training.board import News


def _gauge(what: str, unit: Unit, about: str) -> Metric:
    return Metric("train", what, unit, "gauge", about, ("run", "kind"))


DONE = _gauge("done", "steps", "Optimiser steps done.")
PLANNED = _gauge("planned", "steps", "Optimiser steps of the whole run.")
SKIPPED = _gauge("skipped", "steps", "Steps without an update, since their gradients were not finite.")
LOSS = _gauge("loss", "value", "Mean loss since the line of metrics before.")
HELD_OUT = _gauge("held_out_loss", "value", "Loss of the averaged weights on held-out clips.")
GRADIENT = _gauge("gradient_norm", "value", "Mean norm of the gradients before they are clipped.")
RATE = _gauge("learning_rate", "value", "The learning rate.")
STEP = _gauge("step", "seconds", "That a step takes, with its wait for data.")
WAIT = _gauge("wait", "ratio", "Share of the time in which the slowest rank waits for its data.")
TOKENS = _gauge("speed", "tokens_per_second", "Of all workers.")
FRAMES = _gauge("speed", "frames_per_second", "Of all workers that train a VAE.")
MFU = _gauge("mfu", "ratio", "Share of the devices' peak, where that is known.")
MEMORY = _gauge("memory", "bytes", "Largest peak of all workers.")
CHECKPOINT = _gauge("checkpoint", "steps", "Step of the newest checkpoint; 0 before this start's first.")
CHECKPOINT_AGE = _gauge("checkpoint_age", "seconds", "Since the newest checkpoint, or since the run was started.")
NEWS_AGE = _gauge("news_age", "seconds", "Since the newest line of metrics, or since the run was started.")
WORKERS = _gauge("group", "workers", "In the newest group.")
GROUPS = _gauge("begun", "groups", "Of workers: one more each time that some died or joined.")

# What lines of metrics call them, and how often the unit goes into the line's.
_FACTS: Mapping[str, tuple[Metric, float]] = {
    "skipped": (SKIPPED, 1),
    "loss": (LOSS, 1),
    "validation_loss": (HELD_OUT, 1),
    "gradient_norm": (GRADIENT, 1),
    "learning_rate": (RATE, 1),
    "seconds_per_step": (STEP, 1),
    "wait_share": (WAIT, 1),
    "tokens_per_second": (TOKENS, 1),
    "frames_per_second": (FRAMES, 1),
    "mfu": (MFU, 1),
    "memory_gb": (MEMORY, 1e9),
}

METRICS = (
    DONE,
    PLANNED,
    *(metric for metric, _ in _FACTS.values()),
    CHECKPOINT,
    CHECKPOINT_AGE,
    NEWS_AGE,
    WORKERS,
    GROUPS,
)


class RunMetrics:
    """The gauges of one run, to be told again and again.

    Args:
        run: the output, which names it.
        kind: of its spec.
        steps: of the whole run.
        clock: seconds.
    """

    def __init__(self, run: str, kind: str, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._tags, self._steps, self._clock = {"run": run, "kind": kind}, steps, clock
        self._gauges = {metric: metric.instrument(metrics) for metric in METRICS}
        # The newest of each, and when it came.
        self._checkpoint = self._line = (0, clock())

    def tell(self, news: News) -> None:
        """Says where the run stands."""
        for metric, value in self.values(news).items():
            self._gauges[metric].set(value, self._tags)

    def values(self, news: News) -> dict[Metric, float]:
        """What is known, in the metrics' units."""
        status, now = news.status, self._clock()
        if status.checkpoint != self._checkpoint[0]:
            self._checkpoint = status.checkpoint, now
        if status.step != self._line[0]:
            self._line = status.step, now
        known = {metric: status.facts[fact] * scale for fact, (metric, scale) in _FACTS.items() if fact in status.facts}
        return known | {
            DONE: status.step,
            PLANNED: self._steps,
            CHECKPOINT: status.checkpoint,
            CHECKPOINT_AGE: now - self._checkpoint[1],
            NEWS_AGE: now - self._line[1],
            WORKERS: news.workers,
            GROUPS: news.group,
        }
