"""Slots of equal workers: who gets the next one, who waits for memory, who is asked to leave. No event loop runs."""

import pytest

from rayramid.models.workload import Workload
from rayramid.serve.admission import Capacity
from rayramid.serve.entry import Entry
from rayramid.serve.line import Line
from rayramid.serve.slots import Slots


@pytest.fixture
def book(new_job):
    """Two workers of two slots, which nobody has, and four jobs in line."""
    line, running = Line(), []
    plain, work = new_job(), Workload(1, 1, 10)
    jobs = [plain.model_copy(update={"id": name, "owner": name[0], "work": work}) for name in ("a1", "a2", "a3", "b1")]
    for job in jobs:
        line.push(job)
    return Slots(2, 2, line, lambda: running), line, running, jobs


def give(slots, line, running):
    """Give slots out, as the broker does; the jobs that got some."""
    given = []
    while job := slots.next():
        line.remove(job)
        entry = Entry(job, None)
        running.append(entry)
        given.append(job)
    return given


def test_owners_take_turns_until_all_slots_are_taken_and_more_workers_bring_more(book):
    slots, line, running, (a1, a2, a3, b1) = book
    assert slots.staff(1)
    assert give(slots, line, running) == [a1, b1]
    assert (len(slots), slots.next()) == (2, None)
    assert slots.staff(2)
    assert give(slots, line, running) == [a2, a3]
    assert not slots.staff(2)


def test_what_the_workers_have_no_memory_for_waits(book):
    slots, line, running, (a1, a2, _, b1) = book
    assert slots.know(a1.model_version, Capacity(15))
    assert not slots.know(a1.model_version, Capacity(15))
    # Three times 10 tokens fit into two times 15.
    assert give(slots, line, running) == [a1, b1, a2]
    running.pop(0)
    assert slots.next() is not None


def test_an_owner_of_all_slots_is_asked_for_one_that_is_not_asked_for_twice(book):
    slots, line, running, (a1, a2, a3, b1) = book
    slots.staff(1)
    line.remove(b1)
    assert give(slots, line, running) == [a1, a2]
    line.push(b1)
    (victim,) = slots.to_leave()
    assert victim in (a1, a2)
    next(entry for entry in running if entry.job == victim).leaving = True
    assert slots.to_leave() == []
    assert list(slots.turns()) == [b1, a3]
