"""The books of a job: every input row ends as ok or failed, and the sum is checked."""

from dataclasses import dataclass


class LedgerError(RuntimeError):
    """A sum that must hold does not; work was lost or doubled."""


@dataclass(frozen=True)
class Ledger:
    """What became of a job's inputs. `outputs` counts result rows (for shots: clips)."""

    job: str
    inputs: int
    ok: int
    failed: int
    pending: int
    outputs: int

    def check(self) -> None:
        """LedgerError unless inputs = ok + failed."""
        if self.pending or self.inputs != self.ok + self.failed:
            raise LedgerError(
                f"{self.job}: {self.inputs} inputs, but {self.ok} ok + {self.failed} failed + {self.pending} pending"
            )
