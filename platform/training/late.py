"""What is measured beside the training and comes when training is steps ahead. Knows nothing of Ray."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rayramid.platform.training.metrics import Metrics


@dataclass(frozen=True)
class Late:
    """One late record.

    Attributes:
        step: that it is of.
        record: for the metrics; its first key tells what it is.
        videos: URLs of mp4 files, by name.
    """

    step: int
    record: Mapping[str, Any]
    videos: Mapping[str, str] = field(default_factory=dict)


class Beside(Protocol):
    """What goes on beside the training, as the first rank sees it."""

    def committed(self, step: int) -> None:
        """A checkpoint has become real. Called from the thread that writes it."""

    def finished(self) -> Sequence[Late]:
        """What has come so far, again and again."""


class NothingBeside:
    """Nothing goes on beside the training."""

    def committed(self, step: int) -> None:
        """Nobody waits for it."""

    def finished(self) -> Sequence[Late]:
        """Nothing ever comes."""
        return ()


def write_late(metrics: Metrics, found: Iterable[Late]) -> None:
    """Writes each record once."""
    for late in found:
        if not metrics.has(late.step, late.record):
            metrics.write(late.step, late.record)
            metrics.show(late.step, late.videos)
