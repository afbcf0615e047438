"""When jobs will be done: how fast the endpoint works, and what that means for those that run and those that wait."""

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HALF_LIFE_S = 30.0
# A shorter measurement says nothing.
LEAST_S = 0.5


class Throughput:
    """Tokens per second while there is work; what is long ago counts little. `guess` is used until it is measured."""

    def __init__(self) -> None:
        self.guess: float | None = None
        self._tokens = 0.0
        self._seconds = 0.0
        self._last: float | None = None

    @property
    def per_second(self) -> float | None:
        """None before anything is known."""
        return self._tokens / self._seconds if self._seconds >= LEAST_S and self._tokens else self.guess

    def begin(self, now: float) -> None:
        """There is work from now on, if there was none."""
        self._last = now if self._last is None else self._last

    def done(self, tokens: float, now: float) -> None:
        """So many tokens have been worked off since the last call."""
        assert self._last is not None, "begin comes first"
        elapsed = now - self._last
        kept = 0.5 ** (elapsed / HALF_LIFE_S)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + elapsed
        self._last = now

    def rest(self) -> None:
        """There is no more work."""
        self._last = None


@dataclass(frozen=True)
class Load:
    """What is left of a job: denoising steps, and the tokens in them."""

    steps: float
    tokens: float


@dataclass(frozen=True)
class Demand:
    """What is left of some jobs: seconds that one worker would take for them, and how many jobs that is."""

    seconds: float
    jobs: int


def demand(jobs: Sequence[tuple[str, float]], speeds: Mapping[str, float | None]) -> Demand:
    """How much work there is.

    Args:
        jobs: the version of the model that each needs, and the tokens that are left of it.
        speeds: tokens per second of a worker with a version, as far as that is known. One that is not known is taken
            to be as fast as the slowest that is, and before any is there are jobs but no seconds.
    """
    known = {version: speed for version, speed in speeds.items() if speed}
    slowest = min(known.values(), default=math.inf)
    return Demand(sum(tokens / known.get(version, slowest) for version, tokens in jobs), len(jobs))


@dataclass(frozen=True)
class Times:
    """In how many seconds a job is begun and done."""

    begin: float
    end: float


def forecast(running: Sequence[Load], waiting: Sequence[Load], slots: int, per_second: float) -> list[Times]:
    """When each job will be begun and done, the running ones first; all that run make a step in each forward.

    Args:
        running: jobs that are being made.
        waiting: those behind, in the order of their turns.
        slots: how many run at the same time.
        per_second: tokens that all of them together work off.
    """
    times: list[Times | None] = [None] * (len(running) + len(waiting))
    loads = [*running, *waiting]
    # A forward takes as long as its tokens do; `age` counts forwards.
    now = age = tokens = 0.0
    active: list[tuple[float, int]] = []
    begun: dict[int, float] = {}
    queue = deque(range(len(loads)))
    while queue or active:
        while queue and (len(active) < slots or queue[0] < len(running)):
            index = queue.popleft()
            heapq.heappush(active, (age + loads[index].steps, index))
            begun[index] = now
            tokens += _per_step(loads[index])
        ends, index = heapq.heappop(active)
        now += (ends - age) * tokens / per_second
        age = ends
        tokens -= _per_step(loads[index])
        times[index] = Times(begun[index], now)
    return [each for each in times if each is not None]


def _per_step(load: Load) -> float:
    return load.tokens / load.steps if load.steps else 0.0
