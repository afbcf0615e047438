"""The engine: one loop that packs the current denoising step of every active session into one forward.

Sessions join and leave between steps. A session whose finished units nobody has taken yet pauses, so a slow decoder
or a slow disk bounds what is kept in memory.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from rayramid.models.sampling.session import Session, Unit

log = logging.getLogger(__name__)

# One unit is being decoded while the next one is made.
UNITS_AHEAD = 2


@dataclass(frozen=True)
class Finished:
    """A unit, and its session's state at the unit's edge."""

    unit: Unit
    state: dict[str, Tensor]


@dataclass(eq=False)
class _Seat:
    """One session's place in the loop."""

    session: Session
    ready: deque[Finished] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    # The session's own flag turns in the middle of a step, this one only when the last unit is ready.
    done: bool = False
    # After a failed step in company: until its next unit it shares no forward, which shows whose fault it was.
    alone: bool = False


class Engine:
    """Steps sessions together.

    Args:
        step: one forward of the sampler; blocks, called in a thread, one call at a time.
        tokens_per_step: target tokens that one forward may hold; one session always fits.
    """

    def __init__(self, step: Callable[[Sequence[Session]], list[Unit]], tokens_per_step: int) -> None:
        self._step = step
        self._budget = tokens_per_step
        self._seats: deque[_Seat] = deque()
        self._wake = asyncio.Event()

    @property
    def sessions(self) -> int:
        """How many sessions are in the loop."""
        return len(self._seats)

    async def units(self, session: Session) -> AsyncGenerator[Finished, None]:
        """Join the loop and get the session's units as they finish; closing the iterator leaves it.

        Raises:
            Exception: what a step of this session alone raised.
        """
        seat = _Seat(session, done=session.done)
        self._seats.append(seat)
        self._wake.set()
        try:
            while True:
                while seat.ready:
                    finished = seat.ready.popleft()
                    self._wake.set()
                    yield finished
                if seat.error:
                    raise seat.error
                if seat.done:
                    return
                await seat.changed.wait()
                seat.changed.clear()
        finally:
            if seat in self._seats:
                self._seats.remove(seat)

    async def run(self) -> None:
        """The loop; ends only when cancelled."""
        while True:
            taking = self._next()
            if not taking:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._tick(taking)

    def _next(self) -> list[_Seat]:
        """Who takes part in the next step: from the front of the line until the budget is spent."""
        able = [seat for seat in self._seats if not seat.done and len(seat.ready) < UNITS_AHEAD]
        if able and able[0].alone:
            return able[:1]
        taking: list[_Seat] = []
        tokens = 0
        for seat in able:
            if seat.alone:
                continue
            tokens += seat.session.next_tokens
            if taking and tokens > self._budget:
                break
            taking.append(seat)
        return taking

    async def _tick(self, taking: list[_Seat]) -> None:
        for seat in taking:
            self._seats.remove(seat)
            self._seats.append(seat)
        by_session = {id(seat.session): seat for seat in taking}
        try:
            units = await asyncio.to_thread(self._step, [seat.session for seat in taking])
        # The boundary between one video's trouble (memory, a kernel's refusal) and the loop that serves the others.
        except Exception as error:
            log.exception("step failed", extra={"sessions": len(taking)})
            for seat in taking:
                seat.alone = True
            if len(taking) == 1:
                taking[0].error = error
                taking[0].done = True
                taking[0].changed.set()
            return
        for unit in units:
            seat = by_session[id(unit.session)]
            seat.ready.append(Finished(unit, seat.session.state_dict()))
            seat.alone = False
            seat.changed.set()
        for seat in taking:
            if seat.session.done:
                seat.done = True
                seat.changed.set()
