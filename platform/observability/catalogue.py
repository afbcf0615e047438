"""Every metric of the three systems, for the pages and files that speak of them."""

from collections.abc import Mapping, Sequence

from rayramid.models.metric import Metric
from rayramid.pipelines import metrics as data
from rayramid.platform.training import prometheus as training
from rayramid.serve import metrics as serving

CATALOGUE: Mapping[str, Sequence[Metric]] = {
    "Data jobs": data.METRICS,
    "Training": training.METRICS,
    "Serving": serving.METRICS,
}


def table() -> str:
    """The catalogue in Markdown, as docs/observability.md shows it."""
    return "\n\n".join(f"### {title}\n\n{_rows(metrics)}" for title, metrics in CATALOGUE.items())


def _rows(metrics: Sequence[Metric]) -> str:
    lines = ["| metric | kind | labels | |", "|---|---|---|---|"]
    lines += [
        f"| `{each.exported}` | {each.kind} | {' '.join(f'`{label}`' for label in each.labels)} | {each.about} |"
        for each in metrics
    ]
    return "\n".join(lines)
