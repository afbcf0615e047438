"""A replica's memory for keys and values: who needs some of it waits until it is free, in the order of asking."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Memory:
    """Room for the keys and values of so many tokens, held by whoever is in the midst of a video."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self._line: deque[tuple[int, asyncio.Event]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait for room for `size` tokens; more than all there is waits for everything and gets it."""
        size = min(size, self.size)
        turn = asyncio.Event()
        self._line.append((size, turn))
        self._serve()
        try:
            await turn.wait()
            yield
        finally:
            if turn.is_set():
                self.free += size
            else:
                self._line.remove((size, turn))
            self._serve()

    def _serve(self) -> None:
        while self._line and self._line[0][0] <= self.free:
            size, turn = self._line.popleft()
            self.free -= size
            turn.set()
