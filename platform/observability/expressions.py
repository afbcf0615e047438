"""PromQL over metrics of the catalogue."""

from rayramid.models.metric import Metric

# Grafana's, at least four scrapes long.
WINDOW = "$__rate_interval"
# Of rows, by their outcome.
FAILED = '{outcome="failed"}'


def total(metric: Metric, by: str = "") -> str:
    """The sum of a gauge or counter over all processes."""
    return f"sum{_by(by)} ({metric.exported})"


def rate(metric: Metric, by: str = "", window: str = WINDOW, where: str = "") -> str:
    """A counter's growth a second."""
    return f"sum{_by(by)} (rate({metric.exported}{where}[{window}]))"


def growth(metric: Metric, window: str, where: str = "") -> str:
    """A counter's growth within a window."""
    return f"sum (increase({metric.exported}{where}[{window}]))"


def quantile(share: float, metric: Metric, window: str = WINDOW) -> str:
    """What a share of a histogram's values stays below."""
    return f"histogram_quantile({share}, sum by (le) (rate({metric.exported}_bucket[{window}])))"


def mean(metric: Metric) -> str:
    """Of a histogram's values."""
    parts = [f"sum (rate({metric.exported}_{part}[{WINDOW}]))" for part in ("sum", "count")]
    return " / ".join(parts)


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
