import pytest

from rayramid.serve.estimate import Load, Throughput, Times, forecast


def test_throughput_is_tokens_over_the_seconds_with_work():
    speed = Throughput()
    assert speed.per_second is None
    speed.guess = 7.0
    speed.begin(100.0)
    speed.done(10, 100.2)
    assert speed.per_second == 7.0, "a fifth of a second says nothing"
    speed.done(90, 101.0)
    assert speed.per_second == pytest.approx(100, rel=0.01)
    speed.rest()
    # A pause counts for nothing; after many half-lives only the new speed counts.
    speed.begin(5000.0)
    speed.begin(5001.0)
    for second in range(300):
        speed.done(5, 5001.0 + second)
    assert speed.per_second == pytest.approx(5, rel=0.05)


def test_jobs_share_the_forwards():
    # Two jobs of 10 tokens a step: 2 steps at 20 tokens each, then 2 more at 10, at 10 tokens a second.
    times = forecast([Load(2, 20), Load(4, 40)], [], 2, 10)
    assert times == [Times(0, 4), Times(0, 6)]


def test_who_waits_begins_when_a_slot_is_free():
    # One slot, 1 s a step.
    times = forecast([Load(3, 30)], [Load(2, 20), Load(1, 10)], 1, 10)
    assert times == [Times(0, 3), Times(3, 5), Times(5, 6)]


def test_a_joining_job_slows_the_forwards_down():
    # Steps of 10 and 30 tokens at 10 tokens a second: the second one begins at once, the third when the first is done.
    times = forecast([Load(1, 10)], [Load(2, 60), Load(1, 10)], 2, 10)
    # First forward 4 s; then 30 + 10 tokens, 4 s.
    assert times == [Times(0, 4), Times(0, 8), Times(4, 8)]


def test_more_may_run_than_there_are_slots():
    # As after a restart with fewer of them.
    assert forecast([Load(1, 10), Load(1, 10)], [], 1, 10) == [Times(0, 2), Times(0, 2)]


def test_nothing_left_takes_no_time():
    assert forecast([Load(0, 0)], [Load(1, 10)], 1, 10) == [Times(0, 0), Times(0, 1)]
