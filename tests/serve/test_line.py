from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rayramid.models.brief import Brief
from rayramid.models.workload import Workload
from rayramid.serve.job import Job
from rayramid.serve.line import Line, rank, to_leave

BRIEF = Brief(
    prompt="",
    prompt_suffix="",
    negative_prompt="",
    width=64,
    height=64,
    frames=1,
    fps=8.0,
    grid_width=64,
    grid_height=64,
    latents=1,
    frames_per_unit=1,
    seed=0,
    steps=((1,), (1,)),
    guidance=1.0,
    video_guidance=1.0,
)


def job(name, owner="a", priority=0, deadline=None):
    return Job(
        id=name,
        created_at=0,
        owner=owner,
        model="m",
        model_version="v",
        brief=BRIEF,
        given=0,
        work=Workload(1, 1, 1),
        priority=priority,
        deadline=deadline,
    )


def line(*jobs):
    waiting = Line()
    for each in jobs:
        waiting.push(each)
    return waiting


def names(jobs):
    return [each.id for each in jobs]


def test_owners_take_turns_and_each_ones_jobs_keep_their_order():
    waiting = line(job("a1"), job("a2"), job("a3"), job("b1", "b"), job("c1", "c"), job("c2", "c"))
    assert names(waiting.order({})) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_who_has_fewer_slots_is_next():
    waiting = line(job("a1"), job("b1", "b"), job("b2", "b"), job("b3", "b"))
    assert names(waiting.order({"a": 2, "b": 0})) == ["b1", "b2", "a1", "b3"]


def test_of_one_owner_priority_goes_before_deadline_before_age():
    jobs = [job("1"), job("2", deadline=90.0), job("3", deadline=50.0), job("4", priority=1), job("5", priority=-1)]
    assert names(line(*jobs).order({})) == ["4", "3", "2", "1", "5"]


def test_priority_gives_no_turn_of_another_owner():
    assert names(line(job("a1"), job("b1", "b", priority=100)).order({"b": 1})) == ["a1", "b1"]


def test_who_had_a_turn_comes_behind_the_others():
    waiting = line(job("a1"), job("a2"), job("b1", "b"))
    waiting.remove(job("a1"))
    assert names(waiting.order({})) == ["b1", "a2"]
    waiting.remove(job("nothing", "z"))
    assert len(waiting) == 2


def test_slots_move_until_shares_are_equal():
    running = [job(f"a{n}") for n in range(4)]
    waiting = [job(f"b{n}", "b") for n in range(4)]
    # The newest of the richest owner's jobs leave.
    assert names(to_leave(running, waiting)) == ["a3", "a2"]
    assert to_leave(running[:2], [job("b", "b")]) == [running[1]]
    assert to_leave(running[:1], [job("b", "b")]) == []


def test_an_owners_urgent_job_takes_the_slot_of_its_own_least_urgent_one():
    running = [job("a1", priority=1), job("a2"), job("b1", "b", priority=-5)]
    assert names(to_leave(running, [job("a3", priority=2), job("a4")])) == ["a2"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 1)), max_size=8), st.integers(1, 8))
def test_after_all_have_left_nobody_leaves_again(owners, slots):
    jobs = [job(str(n), owner, priority) for n, (owner, priority) in enumerate(owners)]
    running, waiting = jobs[:slots], line(*jobs[slots:])
    for _ in range(20):
        held = Counter(each.owner for each in running)
        leaving = to_leave(running, waiting.order(held))
        if not leaving:
            break
        for each in leaving:
            running.remove(each)
            waiting.push(each)
        while len(running) < min(slots, len(jobs)):
            following = next(waiting.order(Counter(each.owner for each in running)))
            waiting.remove(following)
            running.append(following)
    assert not leaving
    shares = Counter(each.owner for each in running)
    for each in waiting.order({}):
        assert shares[each.owner] + 1 >= max(shares.values())
        assert all(rank(other)[0] <= rank(each)[0] for other in running if other.owner == each.owner)
