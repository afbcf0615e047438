"""A value that changes now and then, for any number of tasks that want to know."""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Keeps the newest value. Who waits for it costs nothing until it changes."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._closed = False
        self._changed = asyncio.Event()

    def set(self, value: T) -> None:
        """Replace the value; one that is equal is no change."""
        if value != self._value:
            self._value = value
            self._wake()

    def close(self) -> None:
        """There will be no more changes."""
        self._closed = True
        self._wake()

    async def changes(self, pause_s: float = 0.0) -> AsyncIterator[T]:
        """The value now and after each change until it is closed, the last one included; what lies between is skipped.

        Args:
            pause_s: the least time from one to the next, unless it is closed.
        """
        seen: T | None = None
        while True:
            changed = self._changed
            if self._value is not None and self._value != seen:
                seen = self._value
                yield seen
                if pause_s and not self._closed:
                    await asyncio.sleep(pause_s)
            elif self._closed:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
