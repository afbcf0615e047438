"""What Ray's metrics say of an endpoint. Names are `rayramid_serve_<what>`, which Prometheus sees as `ray_rayramid_…`.

No metric is labelled by key, prompt or job: there is no bound to how many there are, and they are nobody's business.
"""

from ray.serve.metrics import Counter, Gauge, Histogram

SECONDS = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0]
SESSIONS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
SHARES = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def _counter(name: str, about: str, *tags: str) -> Counter:
    return Counter(f"rayramid_serve_{name}", description=about, tag_keys=tags)


def _gauge(name: str, about: str) -> Gauge:
    return Gauge(f"rayramid_serve_{name}", description=about)


def _histogram(name: str, about: str, boundaries: list[float]) -> Histogram:
    return Histogram(f"rayramid_serve_{name}", description=about, boundaries=boundaries)


class BrokerMetrics:
    """What the broker knows: jobs that wait, run, end or are refused."""

    def __init__(self) -> None:
        self.queue = _gauge("queue_jobs", "Jobs that wait for a slot.")
        self.running = _gauge("running_jobs", "Jobs that hold a slot.")
        self.wait = _histogram("wait_seconds", "From a job's creation until it first got a slot.", SECONDS)
        self.first_frame = _histogram(
            "first_frame_seconds", "From a job's creation until something of it could be played.", SECONDS
        )
        self._completed = _counter("completed_jobs", "Jobs that ended well.")
        self._failed = _counter("failed_jobs", "Jobs that ended otherwise, by the code of their error.", "kind")
        self._refused = _counter("refused_jobs", "Jobs that were not admitted, by the reason.", "kind")
        self._died = _counter("died_attempts", "Attempts whose worker died or raised.")

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
        self.gap = _histogram("segment_gap_seconds", "From one segment of a video to the next.", SECONDS)
        self.video = _counter("video_seconds", "Seconds of video that were made: its rate is their speed.")
        self.sessions = _histogram("batch_sessions", "Videos that share a forward.", SESSIONS)
        self.occupancy = _histogram("batch_occupancy", "Tokens of a forward, as a share of its budget.", SHARES)
        self.step = _histogram("step_seconds", "Time of a forward.", SECONDS)
        self.cache = _gauge("cache_bytes", "Keys and values of all videos in the making.")
