"""Experiment trackers that a run's metrics go to beside its own files: Weights & Biases and MLflow, both optional."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.training.spec.seeing import MetricsSettings, MLflow, WandB

log = logging.getLogger(__name__)

# How long the end of a run waits for a tracker.
CLOSING_SECONDS = 60.0


class Tracker(Protocol):
    """One run at a tracker; `id` names it there."""

    id: str

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values of `step`, which may lie before steps that were told already."""

    def show(self, step: int, name: str, video: Path) -> None:
        """Adds a video of `step`, an mp4 file."""

    def close(self) -> None:
        """Sends what was not sent yet."""


def check_trackers(settings: MetricsSettings) -> None:
    """Refuses trackers that are not installed here, with what to install."""
    for name, wanted in (("wandb", settings.wandb), ("mlflow", settings.mlflow)):
        if wanted is not None and find_spec(name) is None:
            raise UserError(f"metrics.{name}: it is not installed; pip install 'rayramid[{name}]'")


def open_trackers(
    settings: MetricsSettings, output: str, ids: Mapping[str, str], spec: Mapping[str, Any]
) -> dict[str, Tracker]:
    """The trackers of the spec by name.

    Args:
        settings: which.
        output: where the run is; its last part is the run's name.
        ids: runs to go on with, by tracker; the others begin one.
        spec: shown with the run.

    Raises:
        UserError: a tracker is not installed, or does not let this run in.
    """
    check_trackers(settings)
    name = output.rpartition("/")[2]
    opened: dict[str, Tracker] = {}
    if settings.wandb is not None:
        opened["wandb"] = WandBRun(settings.wandb, name, storage.local_path(output), ids.get("wandb"), spec)
    if settings.mlflow is not None:
        opened["mlflow"] = MLflowRun(settings.mlflow, name, ids.get("mlflow"), spec)
    return opened


class WandBRun:
    """A run at Weights & Biases, whose client waits by itself for a connection that is lost."""

    def __init__(
        self, settings: WandB, name: str, folder: Path | None, run: str | None, spec: Mapping[str, Any]
    ) -> None:
        import wandb

        if settings.mode == "offline" and folder is None:
            raise UserError("metrics.wandb: mode offline keeps its files in the run's output, which is not on a disk")
        try:
            self._run = wandb.init(
                project=settings.project,
                entity=settings.entity,
                name=settings.name or name,
                id=run,
                resume="allow",
                mode=settings.mode,
                dir=folder,
                config=dict(spec),
                allow_val_change=True,
                settings=wandb.Settings(silent=True, console="off", disable_git=True),
            )
        except wandb.Error as refused:
            raise UserError(f"metrics.wandb: {' '.join(str(refused).split())}") from None
        # W&B's own step never goes back, and what is measured beside training comes late.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self.id = self._run.id

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values of `step`."""
        self._run.log({"step": step, **values})

    def show(self, step: int, name: str, video: Path) -> None:
        """Adds a video of `step`."""
        import wandb

        self._run.log({"step": step, name: wandb.Video(str(video), format="mp4")})

    def close(self) -> None:
        """Sends what was not sent yet."""
        self._run.finish()


class MLflowRun:
    """A run at an MLflow tracking server. What the server does not take is reported and left out."""

    def __init__(self, settings: MLflow, name: str, run: str | None, spec: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            self._client = MlflowClient(tracking_uri=settings.tracking_uri)
            if run is None:
                found = self._client.get_experiment_by_name(settings.experiment)
                experiment = found.experiment_id if found else self._client.create_experiment(settings.experiment)
                run = self._client.create_run(experiment, run_name=settings.name or name).info.run_id
                self._client.log_dict(run, dict(spec), "spec.json")
            else:
                self._client.update_run(run, status="RUNNING")
        except MlflowException as refused:
            raise UserError(f"metrics.mlflow: {str(refused).splitlines()[0]}") from None
        self.id = run
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._sending: set[Future[None]] = set()

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values of `step`."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._send(lambda: self._client.log_batch(self.id, metrics))

    def show(self, step: int, name: str, video: Path) -> None:
        """Adds a video of `step`."""
        data = video.read_bytes()

        def send() -> None:
            with tempfile.TemporaryDirectory(prefix="rayramid-mlflow-") as scratch:
                copy = Path(scratch, video.name)
                copy.write_bytes(data)
                self._client.log_artifact(self.id, str(copy), f"{name}/step-{step:08d}")

        self._send(send)

    def close(self) -> None:
        """Sends what was not sent yet; gives up after `CLOSING_SECONDS`."""
        self._send(lambda: self._client.set_terminated(self.id))
        sent, left = wait(self._sending, CLOSING_SECONDS)
        self._report(sent)
        self._thread.shutdown(wait=False, cancel_futures=True)
        if left:
            log.warning("MLflow has not taken the last %d records of the run", len(left))

    def _send(self, call: Callable[[], None]) -> None:
        """In a thread: a server that is away is asked again for minutes, and training does not wait for it."""
        sent, self._sending = wait(self._sending, timeout=0)
        self._report(sent)
        self._sending.add(self._thread.submit(call))

    def _report(self, sent: Iterable[Future[None]]) -> None:
        for failure in filter(None, (each.exception() for each in sent)):
            log.warning("MLflow does not take what is logged: %s", str(failure).split("\n")[0])
