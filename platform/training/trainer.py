"""The shell around the loop: Ray Train starts the workers, and starts them again when one dies.

The only file of this floor that touches Ray Train.
"""

import importlib
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from textwrap import shorten
from typing import Any, Literal

import ray
import ray.exceptions
import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayramid.models.cpu import compute_on_cpu
from rayramid.models.errors import UserError
from rayramid.platform.logs import Fields
from rayramid.platform.spec import spec_model
from rayramid.platform.training.beside import VideoTasks
from rayramid.platform.training.board import Board, Room
from rayramid.platform.training.late import Late
from rayramid.platform.training.outcome import RunFailedError
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.prometheus import RunMetrics
from rayramid.platform.training.spec.run import RunSpec

log = logging.getLogger(__name__)

# What one rank of each kind of run does; resolved in the worker.
LOOPS = {"train": "rayramid.platform.training.loop", "vae": "rayramid.platform.training.vae.loop"}

Progress = Callable[[int, int, str], None]

# Freed buffers of a step stay with the process: returning them to the system costs a third of a CPU step.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
_POLL_SECONDS = 0.5
# How often the workers ask what is wished of them.
_WISH_SECONDS = 1.0
# How often Ray is told how far the run is.
_REPORT_SECONDS = 10.0


def fit(
    spec: RunSpec,
    on_progress: Progress | None = None,
    stopping: Callable[[], bool] = lambda: False,
    videos: VideoTasks | None = None,
) -> bool:
    """Runs `spec` on the cluster that this process is connected to; False when it was stopped before its end.

    The trainer runs in a task whose environment names the cluster, and so do all processes that it starts: on a host
    with two clusters, Ray Train's own helpers would otherwise look for theirs, find two, and stop watching.

    Args:
        spec: of any kind in `LOOPS`, with all that it reads fixed.
        on_progress: called here with (step, steps in all, how it goes) whenever something new is known.
        stopping: asked now and then; True ends the run at a checkpoint of its next step.
        videos: kept going beside the training.

    Raises:
        UserError: a worker met one; it is not retried for ever, but as often as any failure.
        RunFailedError: workers died more often than `workers.restarts`.
    """
    _warn_if_short(spec)
    here = ray.get_runtime_context()
    # On the node of this process, whose end is the run's anyway; any other node may go.
    beside = NodeAffinitySchedulingStrategy(here.get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, scheduling_strategy=beside)(Board).remote()
    environment = {"env_vars": {"RAY_ADDRESS": here.gcs_address, **_ALLOCATOR}}
    task = ray.remote(num_cpus=0, max_retries=0, runtime_env=environment, scheduling_strategy=beside)(_train).remote(
        spec.model_dump(mode="json"), board
    )
    room = Room(spec.workers)
    metrics = RunMetrics(spec.output, spec.kind, spec.steps)
    shown = ""
    try:
        done: list[Any] = []
        while not done:
            done, _ = ray.wait([task], timeout=_POLL_SECONDS)
            news = ray.get(board.read.remote())
            metrics.tell(news)
            for line in news.lines:
                log.warning("%s", line)
            if videos is not None:
                board.measure.remote(videos.tend(news.status.checkpoint))
            line = news.status.line(spec.steps, videos.made if videos is not None else 0)
            if on_progress is not None and news.status.step and line != shown:
                on_progress(news.status.step, spec.steps, line)
                shown = line
            if stopping():
                if not news.group:
                    ray.cancel(task)
                    return False
                board.ask.remote("stop")
            elif room.appeared(news):
                board.ask.remote("grow")
        finished: bool = ray.get(task)
    except ray.exceptions.RayTaskError as failed:
        # Ray raises a mixture of the cause and its own class, whose text is the whole traceback.
        if isinstance(failed.cause, UserError | RunFailedError):
            raise failed.cause from None
        raise
    except BaseException:
        ray.cancel(task)
        raise
    finally:
        room.close()
        ray.kill(board)
    return finished


def _warn_if_short(spec: RunSpec) -> None:
    """Ray waits for nodes that an autoscaler may add; where nobody adds any, this line says what it waits for."""
    there = ray.cluster_resources()
    for name, needed in (("CPU", spec.workers.least * spec.workers.cpus), ("GPU", spec.workers.least)):
        if (name == "CPU" or spec.workers.gpus) and there.get(name, 0) < needed:
            log.warning(
                "the cluster has %d %ss and the workers need %d: waiting for more", there.get(name, 0), name, needed
            )


def _train(spec_fields: dict[str, Any], board: Any) -> bool:
    """Runs the trainer, once more each time that the workers stop to become more; whether the run is finished."""
    spec = _spec(spec_fields)
    while not _fit(spec, board):
        if ray.get(board.asked.remote()) == "stop":
            return False
        ray.get(board.ask.remote(""))
    return True


def _fit(spec: RunSpec, board: Any) -> bool:
    """One group of workers, started again when one dies; what the loop returns."""
    workers = spec.workers
    # Ray wants a place for checkpoints and for its notes about them. Ours are elsewhere, and it keeps none.
    with tempfile.TemporaryDirectory(prefix="rayramid-train-") as scratch:
        trainer = ray.train.torch.TorchTrainer(
            _worker,
            train_loop_config={"spec": spec.model_dump(mode="json"), "board": board},
            torch_config=ray.train.torch.TorchConfig(backend="cpu:gloo,cuda:nccl" if workers.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers.most if workers.least == workers.most else (workers.least, workers.most),
                use_gpu=workers.gpus,
                resources_per_worker=workers.resources,
                # Ray would grow by killing the workers at any moment; `Room` lets them save first.
                elastic_resize_monitor_interval_s=float("inf"),
            ),
            run_config=RunConfig(
                name="ray",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=workers.restarts),
            ),
        )
        try:
            return bool(trainer.fit().return_value)
        except ray.train.WorkerGroupError as failed:
            for failure in failed.worker_failures.values():
                if isinstance(failure, UserError):
                    raise failure from None
            for rank, failure in failed.worker_failures.items():
                if isinstance(failure, WorkerHealthCheckFailedError | WorkerHealthCheckTimeoutError):
                    # Its text ends with the reason, below a description of the worker.
                    reason = shorten(str(failure).splitlines()[-1], 200, placeholder=" …")
                    raise RunFailedError(
                        f"worker {rank} died, after {workers.restarts} restarts (workers.restarts): {reason}"
                    ) from None
            raise


def _worker(config: dict[str, Any]) -> bool:
    """One rank."""
    spec, board = _spec(config["spec"]), config["board"]
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("rayramid").setLevel(logging.INFO)
    # True of a view that is changed in place, which no block's output is.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    if not spec.workers.gpus:
        compute_on_cpu(spec.workers.cpus)
    ranks = Ranks.here(ray.train.torch.get_device())
    for handler in logging.getLogger().handlers:
        handler.addFilter(Fields(run=spec.output, rank=ranks.rank))
    if ranks.is_first:
        logging.getLogger("rayramid").addHandler(_ToDriver(board))
        board.begin.remote(ranks.world)

    loop = importlib.import_module(LOOPS[spec.kind])
    return bool(loop.run(spec, ranks, _Reports(board, ranks), _Wishes(board, ranks), _Beside(board)))


class _Reports:
    """Tells the driver of every line of metrics, and Ray of some."""

    def __init__(self, board: Any, ranks: Ranks) -> None:
        self._board, self._ranks = board, ranks
        self._next = time.monotonic()

    def __call__(self, step: int, record: Mapping[str, Any]) -> None:
        # Ray takes a report every two seconds, and would let the workers wait with the next one.
        if "loss" in record and self._ranks.agree(time.monotonic() >= self._next):
            self._next = time.monotonic() + _REPORT_SECONDS
            ray.train.report({"step": step, "loss": record["loss"]})
        if self._ranks.is_first:
            facts = {name: fact for name, fact in record.items() if isinstance(fact, float | int | str)}
            self._board.write.remote(step, facts)


class _Beside:
    """What goes on beside the training, which the driver sees to."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def committed(self, step: int) -> None:
        self._board.commit.remote(step)

    def finished(self) -> list[Late]:
        found: list[Late] = ray.get(self._board.measured.remote())
        return found


class _Wishes:
    """What is wished of the run: to stop, by the driver; a checkpoint, by nodes that announce that they go."""

    def __init__(self, board: Any, ranks: Ranks) -> None:
        self._board, self._ranks = board, ranks
        self._next = time.monotonic()
        self._going: set[str] = set()

    def __call__(self) -> Literal["save", "stop", ""]:
        # The first rank's clock decides, since asking is a collective and takes some milliseconds.
        if not self._ranks.agree(time.monotonic() >= self._next):
            return ""
        self._next = time.monotonic() + _WISH_SECONDS
        if self._ranks.agree(ray.get(self._board.asked.remote()) if self._ranks.is_first else None):
            return "stop"
        preemption = ray.train.get_preemption_info()
        going = set(preemption.preempted_node_ids) if preemption else set()
        if going <= self._going:
            return ""
        self._going |= going
        log.warning("%d nodes are about to go: saving", len(going))
        return "save"


class _ToDriver(logging.Handler):
    """Sends warnings to whoever waits for the run."""

    def __init__(self, board: Any) -> None:
        super().__init__(logging.WARNING)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        self._board.tell.remote(record.getMessage())


def _spec(fields: dict[str, Any]) -> RunSpec:
    spec = spec_model(fields["kind"]).model_validate(fields)
    assert isinstance(spec, RunSpec)
    return spec
