"""What a process has loaded: so much at a time, and what was used least recently makes room.

Ray Serve's multiplexing also unloads what is in use, whose memory then is not free. Here it stays: who needs something
else waits until something is not in use any more, and who comes later waits behind, so that nobody waits for ever.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing")


class Loaded(Generic[Key, Thing]):
    """Things by their keys.

    Args:
        most: how many there may be.
        load: makes one.
        unload: lets go of one.
    """

    def __init__(
        self,
        most: int,
        load: Callable[[Key], Awaitable[Thing]],
        unload: Callable[[Thing], Awaitable[None]],
    ) -> None:
        self._most = most
        self._load = load
        self._unload = unload
        # The one used least recently first.
        self._things: OrderedDict[Key, asyncio.Future[Thing]] = OrderedDict()
        self._users: Counter[Key] = Counter()
        self._turn = asyncio.Lock()
        self._idle = asyncio.Event()

    def __contains__(self, key: Key) -> bool:
        return key in self._things

    def put(self, key: Key, thing: Thing) -> None:
        """Add a thing that is loaded already; there must be room."""
        assert len(self._things) < self._most
        self._things[key] = asyncio.get_running_loop().create_future()
        self._things[key].set_result(thing)

    def things(self) -> list[Thing]:
        """All that are loaded."""
        whole = (each for each in self._things.values() if each.done() and not each.cancelled())
        return [each.result() for each in whole if each.exception() is None]

    @asynccontextmanager
    async def hold(self, key: Key) -> AsyncIterator[Thing]:
        """Use a thing; it is loaded if it is not there, and stays at least until the end.

        Raises:
            Exception: what loading it raised; the next one who asks tries again.
        """
        async with self._turn:
            if key not in self._things:
                await self._make_room()
                self._things[key] = asyncio.ensure_future(self._load(key))
            self._users[key] += 1
            self._things.move_to_end(key)
        mine = self._things[key]
        try:
            # Others wait for it as well.
            yield await asyncio.shield(mine)
        finally:
            self._users -= Counter([key])
            if mine.done() and (mine.cancelled() or mine.exception()) and self._things.get(key) is mine:
                del self._things[key]
            self._idle.set()

    async def _make_room(self) -> None:
        while len(self._things) >= self._most:
            unused = next((key for key, each in self._things.items() if not self._users[key] and each.done()), None)
            if unused is None:
                self._idle.clear()
                await self._idle.wait()
            else:
                await self._unload(self._things.pop(unused).result())
