"""How a metric is declared: once, with all that code, dashboards, alerts and docs say of it.

Every metric is called `rayramid_<system>_<what>_<unit>`. Ray exports it with the prefix `ray_`, a counter with `_total`
at its end.
"""

from dataclasses import dataclass
from typing import Any, Literal

System = Literal["data", "train", "serve"]
Kind = Literal["counter", "gauge", "histogram"]
# `value` is for numbers without a unit.
Unit = Literal[
    "attempts",
    "bytes",
    "groups",
    "frames_per_second",
    "jobs",
    "ratio",
    "rows",
    "seconds",
    "sessions",
    "shards",
    "steps",
    "tokens_per_second",
    "value",
    "workers",
]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        system: that tells of it.
        what: it counts or measures.
        unit: of its values; a `ratio` is 0..1.
        kind: a counter only grows, a gauge is forgotten when it is not told again within 20 seconds.
        about: one sentence for people.
        labels: by which it is split.
        boundaries: of a histogram's buckets.
    """

    system: System
    what: str
    unit: Unit
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """What Ray is told."""
        return f"rayramid_{self.system}_{self.what}_{self.unit}"

    @property
    def exported(self) -> str:
        """What Prometheus scrapes; a histogram's samples add `_bucket`, `_sum` and `_count`."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that expressions may use."""
        if self.kind == "histogram":
            return tuple(f"{self.exported}_{part}" for part in ("bucket", "sum", "count"))
        return (self.exported,)

    def instrument(self, library: Any) -> Any:
        """What tells of it.

        Args:
            library: has the classes Counter, Gauge and Histogram: `ray.util.metrics` or `ray.serve.metrics`.
        """
        said = {"description": self.about, "tag_keys": self.labels}
        if self.kind == "histogram":
            return library.Histogram(self.name, boundaries=list(self.boundaries), **said)
        return (library.Counter if self.kind == "counter" else library.Gauge)(self.name, **said)
