"""How far a run is, in one line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any


@dataclass(frozen=True)
class Status:
    """What the first worker has told.

    Attributes:
        step: optimiser steps done; 0 before the first line of metrics.
        facts: the newest value of everything that lines of metrics told.
        checkpoint: step of the newest checkpoint.
    """

    step: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: int = 0

    def line(self, steps: int, made: int = 0) -> str:
        """`short clips  loss 0.412  held out 0.430  3.2k tokens/s  0:01:20 left  saved 100  videos 100`.

        Args:
            steps: of the whole run.
            made: step of the newest videos.
        """
        facts = self.facts
        parts = [str(facts["phase"])] if "phase" in facts else []
        parts += [f"{name} {facts[key]:.3f}" for name, key in _LOSSES.items() if key in facts]
        if "tokens_per_second" in facts:
            parts.append(f"{_thousands(facts['tokens_per_second'])} tokens/s")
        if "seconds_per_step" in facts:
            left = timedelta(seconds=round(facts["seconds_per_step"] * (steps - self.step)))
            parts.append(f"{left} left")
        parts += [f"{name} {at}" for name, at in (("saved", self.checkpoint), ("videos", made)) if at]
        return "  ".join(parts)


_LOSSES = {"loss": "loss", "held out": "validation_loss"}


def _thousands(number: float) -> str:
    return f"{number / 1000:.1f}k" if number >= 1000 else f"{number:.0f}"
