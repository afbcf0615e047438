"""How many samplers there are to be: the decision alone, as Serve's controller asks for it, and what it is told."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayramid.serve.app import autoscaling_config
from rayramid.serve.autoscaling import JOBS, SECONDS, Backlog, replicas_for
from rayramid.serve.estimate import Demand, demand
from rayramid.serve.spec import AutoscalingOptions, SamplerOptions

WORK = st.floats(0, 1e9)


@pytest.mark.parametrize(
    ("seconds", "jobs", "wanted"),
    [
        (0, 0, 0),
        # One job is one replica's, however long it takes.
        (1, 1, 1),
        (600, 1, 1),
        # 600 s of work in 60 s.
        (600, 40, 10),
        (601, 40, 11),
        (600, 3, 3),
        # Nothing is known of the speed yet.
        (0, 5, 1),
        # The average of a moment in which the last job ended.
        (3.5, 0.4, 1),
    ],
)
def test_as_many_as_work_the_backlog_off_in_time_but_no_more_than_jobs(seconds, jobs, wanted):
    assert replicas_for(seconds, jobs, 60) == wanted


@given(WORK, WORK, st.integers(0, 1000), st.integers(0, 1000), st.floats(1, 1e6))
def test_more_work_never_asks_for_fewer_and_there_are_none_only_without_jobs(less, more, few, many, within_s):
    less, more = sorted((less, more))
    few, many = sorted((few, many))
    assert replicas_for(less, few, within_s) <= replicas_for(more, many, within_s)
    assert (replicas_for(more, many, within_s) == 0) == (many == 0)
    assert replicas_for(more, many, within_s) <= many


def asked(target, metrics):
    policy = Backlog(within_s=60)
    return policy(SimpleNamespace(target_num_replicas=target, aggregated_metrics=metrics))[0]


def test_the_policy_believes_the_replica_that_says_most_and_keeps_the_number_while_none_does():
    assert asked(1, {SECONDS: {"one": 100.0, "two": 290.0}, JOBS: {"one": 9.0, "two": 12.0}}) == 5
    assert asked(3, {SECONDS: {"one": 0.0}, JOBS: {"one": 0.0}}) == 0
    for nothing in (None, {}, {SECONDS: {}, JOBS: {}}):
        assert asked(2, nothing) == 2


def test_work_is_measured_in_seconds_of_a_worker_with_the_jobs_model():
    jobs = [("fast", 1000.0), ("slow", 1000.0), ("new", 500.0)]
    # 1000 / 100, 1000 / 10, and the new one as fast as the slowest.
    assert demand(jobs, {"fast": 100.0, "slow": 10.0}) == Demand(10 + 100 + 50, 3)
    assert demand(jobs, {"fast": None}) == Demand(0, 3)
    assert demand([], {"fast": 100.0}) == Demand(0, 0)


def test_serve_gets_bounds_delays_and_the_policy():
    config = autoscaling_config(AutoscalingOptions(min=0, max=4, backlog_seconds=30, down_after_seconds=90))
    assert (config.min_replicas, config.max_replicas, config.downscale_delay_s) == (0, 4, 90)
    policy = config.policy.get_policy()(**config.policy.policy_kwargs)
    assert policy(SimpleNamespace(target_num_replicas=1, aggregated_metrics={SECONDS: {"a": 90}, JOBS: {"a": 9}})) == (
        3,
        {},
    )


def test_a_fixed_number_and_bounds_exclude_each_other():
    with pytest.raises(ValidationError, match="replicas is a fixed number"):
        SamplerOptions(replicas=2, autoscaling={"max": 3})
    with pytest.raises(ValidationError, match="min is 4, more than max, 3"):
        SamplerOptions(autoscaling={"min": 4, "max": 3})
    assert (SamplerOptions(replicas=2).most_replicas, SamplerOptions(autoscaling={"max": 3}).most_replicas) == (2, 3)
