"""The shell around the loop: Ray Train starts the workers, and starts them again when one dies.

The only file of this floor that touches Ray Train.
"""

import importlib
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig

from rayramid.models.errors import UserError
from rayramid.platform.spec import spec_model
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.spec import RunSpec

log = logging.getLogger(__name__)

# What one rank of each kind of run does; resolved in the worker.
LOOPS = {"train": "rayramid.platform.training.loop"}

Progress = Callable[[int, int, float], None]

# Freed buffers of a step stay with the process: returning them to the system costs a third of a CPU step.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
_POLL_SECONDS = 0.5


class _Board:
    """Where the first worker writes how far it is, and the driver reads it."""

    def __init__(self) -> None:
        self._newest: tuple[int, float] | None = None

    def write(self, step: int, loss: float) -> None:
        self._newest = (step, loss)

    def read(self) -> tuple[int, float] | None:
        return self._newest


def fit(spec: RunSpec, on_progress: Progress | None = None) -> None:
    """Runs `spec` to its end on the cluster that this process is connected to.

    The trainer runs in a task whose environment names the cluster, and so do all processes that it starts: on a host
    with two clusters, Ray Train's own helpers would otherwise look for theirs, find two, and stop watching.

    Args:
        spec: of any kind in `LOOPS`, with all that it reads fixed.
        on_progress: called here with (step, steps in all, loss) after each line of metrics.

    Raises:
        UserError: a worker met one; it is not retried for ever, but as often as any failure.
    """
    _warn_if_short(spec)
    address = ray.get_runtime_context().gcs_address
    board = ray.remote(num_cpus=0)(_Board).remote()
    environment = {"env_vars": {"RAY_ADDRESS": address, **_ALLOCATOR}}
    task = ray.remote(num_cpus=0, max_retries=0, runtime_env=environment)(_train).remote(
        spec.model_dump(mode="json"), board
    )
    shown = None
    try:
        done: list[Any] = []
        while not done:
            done, _ = ray.wait([task], timeout=_POLL_SECONDS)
            newest = ray.get(board.read.remote())
            if on_progress is not None and newest is not None and newest != shown:
                on_progress(newest[0], spec.steps, newest[1])
                shown = newest
        mistake = ray.get(task)
    except BaseException:
        ray.cancel(task)
        raise
    finally:
        ray.kill(board)
    if mistake is not None:
        raise UserError(mistake)


def _warn_if_short(spec: RunSpec) -> None:
    """Ray waits for nodes that an autoscaler may add; where nobody adds any, this line says what it waits for."""
    there = ray.cluster_resources()
    for name, needed in (("CPU", spec.workers.count * spec.workers.cpus), ("GPU", spec.workers.count)):
        if (name == "CPU" or spec.workers.gpus) and there.get(name, 0) < needed:
            log.warning(
                "the cluster has %d %ss and the workers need %d: waiting for more", there.get(name, 0), name, needed
            )


def _train(spec_fields: dict[str, Any], board: Any) -> str | None:
    """Runs the trainer; returns the message of a user's mistake, if that ended it."""
    spec = _spec(spec_fields)
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={"spec": spec_fields, "board": board},
        torch_config=ray.train.torch.TorchConfig(backend="cpu:gloo,cuda:nccl" if spec.workers.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=spec.workers.count,
            use_gpu=spec.workers.gpus,
            resources_per_worker={"CPU": spec.workers.cpus} | ({"GPU": 1} if spec.workers.gpus else {}),
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=spec.output,
            failure_config=FailureConfig(max_failures=spec.workers.restarts),
        ),
    )
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as failed:
        for failure in failed.worker_failures.values():
            if isinstance(failure, UserError):
                return str(failure)
        raise
    return None


def _worker(config: dict[str, Any]) -> None:
    """One rank."""
    spec = _spec(config["spec"])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    # True of a view that is changed in place, which no block's output is.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    if not spec.workers.gpus:
        torch.set_num_threads(spec.workers.cpus)
    ranks = Ranks.here(ray.train.torch.get_device())

    def report(step: int, record: Mapping[str, Any]) -> None:
        ray.train.report({"step": step, "loss": record["loss"]})
        if ranks.is_first:
            config["board"].write.remote(step, record["loss"])

    importlib.import_module(LOOPS[spec.kind]).run(spec, ranks, report)


def _spec(fields: dict[str, Any]) -> RunSpec:
    spec = spec_model(fields["kind"]).model_validate(fields)
    assert isinstance(spec, RunSpec)
    return spec
