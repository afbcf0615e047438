"""What a check of the machine found."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of `rayramid doctor`.

    Attributes:
        name: what was looked at.
        verdict: `warn` means that something works worse or not everywhere, `fail` that something will not work.
        found: what is there.
        advice: what to do about it; empty when all is well.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def judge(name: str, amount: float, found: str, *, low: float, least: float, advice: str) -> Finding:
    """A finding on an amount that is better high: `warn` below `low`, `fail` below `least`."""
    if amount >= low:
        return Finding(name, "ok", found)
    return Finding(name, "fail" if amount < least else "warn", found, advice)
