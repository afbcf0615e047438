"""What Ray's metrics say of the data path's jobs while they go on."""

from rayramid.models.metric import Metric
from rayramid.pipelines.receipts import Receipt

ROWS = Metric(
    "data",
    "committed",
    "rows",
    "counter",
    "Input rows of committed shards, by outcome: ok or failed.",
    ("data_job", "outcome"),
)
BYTES = Metric("data", "written", "bytes", "counter", "Of the files of committed shards.", ("data_job",))
SECONDS = Metric("data", "worked", "seconds", "counter", "That workers spent on committed shards.", ("data_job",))
# No gauges: Ray forgets one that is not told again, and nobody tells anything when a job is over.
PLANNED = Metric("data", "planned", "shards", "counter", "Shards of jobs that have begun.", ("data_job",))
DONE = Metric("data", "done", "shards", "counter", "Those of them that are committed.", ("data_job",))

METRICS = (ROWS, BYTES, SECONDS, PLANNED, DONE)


class WorkerMetrics:
    """Told by the worker that does a job's shards."""

    def __init__(self, job: str) -> None:
        from ray.util import metrics

        self._rows, self._bytes, self._seconds = (each.instrument(metrics) for each in (ROWS, BYTES, SECONDS))
        for instrument in (self._rows, self._bytes, self._seconds):
            instrument.set_default_tags({"data_job": job})

    def count(self, receipt: Receipt) -> None:
        """Add a shard."""
        for outcome, rows in (("ok", receipt.ok), ("failed", len(receipt.failures))):
            if rows:
                self._rows.inc(rows, {"outcome": outcome})
        self._bytes.inc(max(receipt.bytes, 1))
        self._seconds.inc(max(receipt.seconds, 0.001))


class DriverMetrics:
    """The numbers of the live display, told by the driver."""

    def __init__(self, job: str, shards: int) -> None:
        from ray.util import metrics

        PLANNED.instrument(metrics).inc(shards, {"data_job": job})
        self._done = DONE.instrument(metrics)
        self._done.set_default_tags({"data_job": job})

    def one_more(self) -> None:
        """Count a shard that is committed."""
        self._done.inc()
