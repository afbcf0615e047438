"""The engine: one loop that packs the current denoising step of every session that takes part into one forward.

A session takes part while somebody waits for its next unit, so it joins and leaves between any two steps. Owners get
equal shares of the tokens; within an owner's share higher priorities go first.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from rayramid.models.sampling.session import Session, Unit

log = logging.getLogger(__name__)

# A session that has finished a unit asks for the next one after a moment; the others wait so long for its company.
EDGE_S = 0.05


@dataclass(eq=False)
class Seat:
    """One session's place at the engine."""

    session: Session
    owner: str
    priority: int
    # Who waits for the next unit, if anybody does.
    waiter: asyncio.Future[Unit] | None = None
    # Until when the others wait for this session to go on.
    expected_until: float = 0.0
    # After a failed step in company: until its next unit it shares no forward, which shows whose fault it was.
    alone: bool = False
    last_tick: int = 0

    @property
    def takes_part(self) -> bool:
        """Whether somebody waits for the session's next unit."""
        return self.waiter is not None and not self.waiter.done()


class Engine:
    """Steps sessions together.

    Args:
        step: one forward of the sampler; blocks, called in a thread of its own, one call at a time.
        tokens_per_step: tokens that one forward may hold; one session always fits.
        thread: where steps are made; engines that share it take turns.
    """

    def __init__(
        self,
        step: Callable[[Sequence[Session]], list[Unit]],
        tokens_per_step: int,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self._step = step
        self._budget = tokens_per_step
        self._seats: list[Seat] = []
        # Tokens that each owner with a seat has had.
        self._served: dict[str, int] = {}
        self._ticks = 0
        self._wake = asyncio.Event()
        self._thread = thread or ThreadPoolExecutor(1, "step")

    @property
    def sessions(self) -> int:
        """How many sessions have a seat."""
        return len(self._seats)

    @property
    def cache_bytes(self) -> int:
        """Keys and values of all of them."""
        return sum(seat.session.cache_bytes for seat in list(self._seats))

    @contextmanager
    def seat(self, session: Session, owner: str = "", priority: int = 0) -> Iterator[Seat]:
        """A place for a session, from its first unit to its last."""
        seat = Seat(session, owner, priority)
        # Who comes new starts level with whoever has had least, not with a claim on all the past.
        self._served.setdefault(owner, min(self._served.values(), default=0))
        self._seats.append(seat)
        try:
            yield seat
        finally:
            self._seats.remove(seat)
            if all(other.owner != owner for other in self._seats):
                del self._served[owner]
            self._wake.set()

    async def unit(self, seat: Seat) -> Unit:
        """The session's next unit; cancelled, it leaves the loop before the next step and stays where it is.

        Raises:
            Exception: what a step of this session alone raised.
        """
        seat.waiter = asyncio.get_running_loop().create_future()
        self._wake.set()
        try:
            return await seat.waiter
        finally:
            seat.waiter = None

    async def run(self) -> None:
        """The loop; ends only when cancelled."""
        while True:
            await self._gather()
            taking = self._next()
            if taking:
                await self._tick(taking)
            else:
                await self._woken(None)

    async def _gather(self) -> None:
        """Wait a moment for sessions that have just finished a unit and will want the next."""
        while True:
            now = asyncio.get_running_loop().time()
            expected = [seat.expected_until for seat in self._seats if not seat.takes_part]
            latest = max(expected, default=0.0)
            if latest <= now:
                return
            await self._woken(latest - now)

    async def _woken(self, timeout_s: float | None) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _next(self) -> list[Seat]:
        """Who takes part in the next step: owners in turn, until the budget is spent."""
        able = [seat for seat in self._seats if seat.takes_part]
        served = dict(self._served)
        taking: list[Seat] = []
        tokens = 0
        while able:
            seat = min(able, key=lambda each: (served[each.owner], -each.priority, each.last_tick))
            able.remove(seat)
            if seat.alone:
                if taking:
                    continue
                return [seat]
            cost = seat.session.next_tokens
            if taking and tokens + cost > self._budget:
                break
            tokens += cost
            served[seat.owner] += cost
            taking.append(seat)
        return taking

    async def _tick(self, taking: list[Seat]) -> None:
        self._ticks += 1
        for seat in taking:
            seat.last_tick = self._ticks
            self._served[seat.owner] += seat.session.next_tokens
        loop = asyncio.get_running_loop()
        try:
            units = await loop.run_in_executor(self._thread, self._step, [seat.session for seat in taking])
        # The boundary between one video's trouble (memory, a kernel's refusal) and the loop that serves the others.
        except Exception as error:
            log.exception("step failed", extra={"sessions": len(taking)})
            for seat in taking:
                seat.alone = True
            waiter = taking[0].waiter
            if len(taking) == 1 and waiter is not None and taking[0].takes_part:
                waiter.set_exception(error)
            return
        finished = {id(unit.session): unit for unit in units}
        for seat in taking:
            unit = finished.get(id(seat.session))
            if unit is not None:
                seat.alone = False
                seat.expected_until = 0.0 if seat.session.done else loop.time() + EDGE_S
                # Who was waiting may have left while the step ran.
                if seat.waiter is not None and seat.takes_part:
                    seat.waiter.set_result(unit)
