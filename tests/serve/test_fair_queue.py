from types import SimpleNamespace

from rayramid.serve.fair_queue import FairQueue


def queue_of(*names):
    queue = FairQueue()
    for name in names:
        queue.push(SimpleNamespace(id=name, owner=name[0]))
    return queue


def drain(queue):
    return [queue.pop().id for _ in range(len(queue))]


def test_owners_take_turns_and_keep_their_own_order():
    assert drain(queue_of("a1", "a2", "a3", "b1", "c1", "b2")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_late_owner_waits_for_one_turn_only():
    queue = queue_of("a1", "a2", "a3")
    assert queue.pop().id == "a1"
    queue.push(SimpleNamespace(id="b1", owner="b"))
    assert drain(queue) == ["a2", "b1", "a3"]


def test_a_job_that_is_put_back_is_next():
    queue = queue_of("a1", "b1", "a2")
    job = queue.pop()
    queue.push_front(job)
    assert drain(queue) == ["a1", "b1", "a2"]


def test_removing_leaves_the_others():
    queue = queue_of("a1", "a2", "b1")
    assert queue.remove("b1")
    assert not queue.remove("b1")
    assert queue.remove("a1")
    assert drain(queue) == ["a2"]
    assert len(queue) == 0
