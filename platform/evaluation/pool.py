"""Pieces of work dealt to actors on Ray, each of which loads its models once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rayramid.pipelines.spec import Workers


def deal(worker: Callable[[Any], Any], spec: Any, workers: Workers, method: str, work: Sequence[Any]) -> Iterator[Any]:
    """What `method` of workers gives for each piece, as they finish; a worker that dies is started again.

    Args:
        worker: a class that is made from the spec alone.
        spec: the spec.
        workers: how many, and what each reserves.
        method: takes one piece; a piece whose worker died is done anew.
        work: the pieces.
    """
    import ray
    from ray.util import ActorPool

    remote = ray.remote(worker).options(
        num_cpus=workers.cpus, num_gpus=workers.gpus, max_restarts=2, max_task_retries=2
    )
    pool = ActorPool([remote.remote(spec) for _ in range(min(workers.count, len(work)))])
    yield from pool.map_unordered(lambda actor, piece: getattr(actor, method).remote(piece), work)
