"""Waiting for the clock, where a library names things by the second."""

import time


def wait_for_another_second() -> None:
    """W&B and TensorBoard name files by the second in which a run began, and no run begins twice in one."""
    began = int(time.time())
    while int(time.time()) == began:
        time.sleep(0.01)
