"""Between the driver and the workers: a board on which both write, and a look-out for room for more workers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from rayramid.platform.training.late import Late
from rayramid.platform.training.spec.hardware import Workers
from rayramid.platform.training.status import Status

# Ray reserves what is free within milliseconds.
_LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class News:
    """What the driver reads.

    Attributes:
        status: how far the run is.
        group: how many groups of workers have begun; each death starts another one.
        workers: in the newest group.
        lines: to show, each once.
    """

    status: Status
    group: int
    workers: int
    lines: tuple[str, ...]


class Board:
    """An actor: the first worker writes how far it is, and the driver what it wishes and what came in beside."""

    def __init__(self) -> None:
        self._news = News(Status(), 0, 0, ())
        self._asked: Literal["stop", "grow", ""] = ""
        self._late: list[Late] = []

    def begin(self, workers: int) -> None:
        """A group of workers begins, as many as there is room for."""
        if self._asked == "grow":
            self._asked = ""
        if self._news.group:
            self.tell(f"started again, with {workers} workers")
        self._news = replace(self._news, group=self._news.group + 1, workers=workers)

    def write(self, step: int, facts: Mapping[str, Any]) -> None:
        """A line of metrics was written."""
        before = self._news.status
        self._news = replace(self._news, status=replace(before, step=step, facts={**before.facts, **facts}))

    def commit(self, step: int) -> None:
        """A checkpoint has become real."""
        self._news = replace(self._news, status=replace(self._news.status, checkpoint=step))

    def measure(self, found: Sequence[Late]) -> None:
        """Something came of what goes on beside the training."""
        self._late += found

    def measured(self) -> list[Late]:
        """All that came."""
        return self._late

    def tell(self, line: str) -> None:
        """Something that whoever waits for the run should know."""
        self._news = replace(self._news, lines=(*self._news.lines, line))

    def read(self) -> News:
        """The news; its lines are gone then."""
        news, self._news = self._news, replace(self._news, lines=())
        return news

    def ask(self, wish: Literal["stop", "grow", ""]) -> None:
        """The workers should save and stop: for good, to become more, or not any longer."""
        if self._asked != "stop":
            self._asked = wish

    def asked(self) -> Literal["stop", "grow", ""]:
        """What was asked for."""
        return self._asked


class Room:
    """Finds out whether the cluster has room for one more worker, by reserving it for a moment."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._group = 0
        self._next = 0.0
        self._reserved: PlacementGroup | None = None

    def appeared(self, news: News) -> bool:
        """Whether there is room now; looks at most every `grow_after` seconds of a group that could be larger."""
        now = time.monotonic()
        if news.group != self._group:
            self._group, self._next = news.group, now + self._workers.grow_after
        if self._reserved is not None:
            there: bool = self._reserved.wait(timeout_seconds=0)
            if there or now > self._next - self._workers.grow_after + _LOOK_SECONDS:
                self.close()
            return there
        if 0 < news.workers < self._workers.most and now >= self._next:
            self._next = now + self._workers.grow_after
            self._reserved = placement_group([self._workers.resources])
        return False

    def close(self) -> None:
        """Gives back what is reserved."""
        if self._reserved is not None:
            remove_placement_group(self._reserved)
            self._reserved = None
