"""How many samplers there are to be, by what their work costs: a policy that Ray Serve's controller calls.

It imports nothing of the project, since it runs in the controller.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

# What every sampler reports: seconds that one would take for all that runs and waits, and how many jobs that is.
SECONDS, JOBS = "backlog_seconds", "jobs"


class Context(Protocol):
    """What the policy needs of Serve's `AutoscalingContext`."""

    target_num_replicas: int
    aggregated_metrics: Mapping[str, Mapping[Any, float]] | None


def replicas_for(seconds: float, jobs: float, within_s: float) -> int:
    """As many as work `seconds` of one replica off in `within_s`, but no more than there are jobs; 0 without jobs."""
    return min(math.ceil(jobs), max(1, math.ceil(seconds / within_s)))


class Backlog:
    """Ray Serve's policy. Serve applies bounds and delays, and starts one replica for the first job when there is none.

    Args:
        within_s: the time in which replicas are to work off what there is.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The number that is wanted, and no state; it stays while nobody reports, as when there is no replica."""
        found = context.aggregated_metrics or {}
        seconds, jobs = (max(found.get(name, {}).values(), default=None) for name in (SECONDS, JOBS))
        if seconds is None or jobs is None:
            return context.target_num_replicas, {}
        return replicas_for(seconds, jobs, self._within_s), {}
