"""What Ray's metrics say of an endpoint.

No metric is labelled by key, prompt or job: there is no bound to how many there are, and they are nobody's business.
"""

import asyncio
from collections.abc import Callable, Sized

from ray.serve import metrics

from rayramid.models.metric import Metric, Unit

# Ray forgets a gauge that it is not told again within 20 seconds.
GAUGES_S = 5.0
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_SESSIONS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def _histogram(what: str, unit: Unit, about: str, boundaries: tuple[float, ...]) -> Metric:
    return Metric("serve", what, unit, "histogram", about, boundaries=boundaries)


QUEUE = Metric("serve", "queue", "jobs", "gauge", "That wait for a slot.")
RUNNING = Metric("serve", "running", "jobs", "gauge", "That hold a slot.")
WAIT = _histogram("wait", "seconds", "From a job's creation until it first got a slot.", _SECONDS)
FIRST_FRAME = _histogram(
    "first_frame", "seconds", "From a job's creation until something of it could be played.", _SECONDS
)
COMPLETED = Metric("serve", "completed", "jobs", "counter", "That ended well.")
FAILED = Metric("serve", "failed", "jobs", "counter", "That ended otherwise, by the code of their error.", ("kind",))
REFUSED = Metric("serve", "refused", "jobs", "counter", "That were not admitted, by the reason.", ("kind",))
DIED = Metric("serve", "died", "attempts", "counter", "At jobs, whose worker died or raised.")
GAP = _histogram("segment_gap", "seconds", "From one segment of a video to the next.", _SECONDS)
VIDEO = Metric("serve", "video", "seconds", "counter", "Of video that were made: the rate is their speed.")
SESSIONS = _histogram("batch", "sessions", "Videos that share a forward.", _SESSIONS)
FILL = _histogram("batch_fill", "ratio", "Tokens of a forward, as a share of its budget.", _RATIOS)
STEP = _histogram("step", "seconds", "That a forward takes.", _SECONDS)
CACHE = Metric("serve", "cache", "bytes", "gauge", "Keys and values of a model's videos in the making.", ("version",))

METRICS = (
    QUEUE,
    RUNNING,
    WAIT,
    FIRST_FRAME,
    COMPLETED,
    FAILED,
    REFUSED,
    DIED,
    GAP,
    VIDEO,
    SESSIONS,
    FILL,
    STEP,
    CACHE,
)


class BrokerMetrics:
    """What the broker knows: jobs that wait, run, end or are refused."""

    def __init__(self) -> None:
        self.queue, self.running = QUEUE.instrument(metrics), RUNNING.instrument(metrics)
        self.wait, self.first_frame = WAIT.instrument(metrics), FIRST_FRAME.instrument(metrics)
        self._completed, self._failed = COMPLETED.instrument(metrics), FAILED.instrument(metrics)
        self._refused, self._died = REFUSED.instrument(metrics), DIED.instrument(metrics)

    async def tell_jobs(self, waiting: Sized, running: Callable[[], Sized]) -> None:
        """Tell for ever how many jobs wait and run."""
        while True:
            self.queue.set(len(waiting))
            self.running.set(len(running()))
            await asyncio.sleep(GAUGES_S)

    def ended(self, code: str | None) -> None:
        """Count a job that has ended, by its error if it has one."""
        if code is None:
            self._completed.inc()
        else:
            self._failed.inc(tags={"kind": code})

    def refused(self, reason: str) -> None:
        """Count a job that was not admitted."""
        self._refused.inc(tags={"kind": reason})

    def died(self) -> None:
        """Count an attempt that raised."""
        self._died.inc()


class WorkerMetrics:
    """What a sampler knows: forwards, and the video that comes out of them."""

    def __init__(self) -> None:
        self.gap, self.video = GAP.instrument(metrics), VIDEO.instrument(metrics)
        self.sessions, self.fill = SESSIONS.instrument(metrics), FILL.instrument(metrics)
        self.step, self._cache = STEP.instrument(metrics), CACHE.instrument(metrics)

    def cache(self, version: str, size: int) -> None:
        """Tell how many bytes the keys and values of a model's videos are."""
        self._cache.set(size, tags={"version": version})
