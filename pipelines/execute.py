"""Shards on Ray Data, and the only file that uses it: one input row is one shard, one result row says it is committed.

Frames and latents never enter Ray's object store. If a worker dies, Ray Data starts another and gives it the shard
again; what was committed before is skipped.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rayramid.pipelines.job import Recipe
from rayramid.pipelines.metrics import DriverMetrics, WorkerMetrics
from rayramid.pipelines.plan import Shard, read_shard
from rayramid.pipelines.spec import Workers
from rayramid.pipelines.worker import work

T = TypeVar("T")

# Ray keeps some 20 KB of each shard that it was given, until all of them are done. Workers start anew for the next.
AT_ONCE = 4096


class ShardWorker:
    """A Ray Data worker: builds its job once, then does shards."""

    def __init__(self, root: str, run: str, job_name: str, recipe: Recipe) -> None:
        self._root = root
        self._run = run
        self._job_name = job_name
        self._job = recipe()
        self._metrics = WorkerMetrics(job_name)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the shards that the rows name by plan and row group."""
        places = zip(batch["plan"], batch["row_group"], strict=True)
        shards = [read_shard(self._job_name, str(plan), int(row_group)) for plan, row_group in places]
        done = [work(self._root, self._run, self._job, shard, items) for shard, items in shards]
        for receipt in done:
            self._metrics.count(receipt)
        return {"shard_id": [receipt.shard_id for receipt in done]}


def execute(
    root: str, run: str, recipe: Recipe, shards: Sequence[Shard], workers: Workers, on_shard: Callable[[], None]
) -> None:
    """Do shards of one job, calling `on_shard` for each that is committed; expects Ray to be initialised."""
    import ray.data

    # The caller shows progress, and counts shards of all jobs alike.
    ray.data.DataContext.get_current().enable_progress_bars = False
    metrics = DriverMetrics(shards[0].job, len(shards))
    for start in range(0, len(shards), AT_ONCE):
        some = shards[start : start + AT_ONCE]
        rows = [{"plan": shard.plan, "row_group": shard.row_group} for shard in some]
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShardWorker,
            fn_constructor_args=(root, run, some[0].job, recipe),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers.count, len(some))),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
        )
        for _ in results.iter_rows():
            metrics.one_more()
            on_shard()


def begin(function: Callable[..., T], workers: Workers, *args: Any) -> Callable[[], T]:
    """Start a function in the cluster, with the resources of one worker; the result waits for it.

    Its own error is raised where the result is asked for.
    """
    import ray
    from ray.exceptions import RayTaskError

    under_way = ray.remote(function).options(num_cpus=workers.cpus, num_gpus=workers.gpus).remote(*args)

    def result() -> T:
        try:
            value: T = ray.get(under_way)
        except RayTaskError as error:
            raise error.cause from None
        return value

    return result
