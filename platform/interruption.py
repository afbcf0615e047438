"""Ctrl-C and SIGTERM as a wish, which a command fulfils in its own time."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rayramid.platform.console import say


class Interruption:
    """Whether a signal has come, and which; `promise` is what the user is told then."""

    def __init__(self, promise: str) -> None:
        self._promise = promise
        self._signal = 0

    def __bool__(self) -> bool:
        return self._signal != 0

    @property
    def code(self) -> int:
        """The exit code of a process that this signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self._signal

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Remembers the first signal; the second one interrupts whatever goes on."""
        if self:
            # Ray passes this exception on as it is, and makes exit code 1 of a SystemExit that meets its waiting.
            raise KeyboardInterrupt
        self._signal = number
        say(self._promise)


@contextmanager
def interruptible(promise: str) -> Iterator[Interruption]:
    """Inside, the first Ctrl-C or SIGTERM ends nothing but says the promise, and the second one ends the process."""
    interruption = Interruption(promise)
    before = {number: signal.signal(number, interruption.catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    except KeyboardInterrupt:
        sys.exit(interruption.code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
