"""Waiting: for the clock, where a library names things by the second, and for what another process writes."""

import time
from collections.abc import Callable

PATIENCE_S = 60


def wait_for_another_second() -> None:
    """W&B and TensorBoard name files by the second in which a run began, and no run begins twice in one."""
    began = int(time.time())
    while int(time.time()) == began:
        time.sleep(0.01)


def wait_until(true: Callable[[], object]) -> None:
    """W&B's service writes what was logged in its own time, also when the run has finished."""
    deadline = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
