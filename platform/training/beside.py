"""Beside the training, the driver keeps a Ray task that makes videos of the newest checkpoint.

Neither waits for the other. A task that dies is reported in the log and in the metrics, and the training goes on.
"""

import logging
import os
import time
from types import TracebackType
from typing import Any

import ray
import ray.exceptions
import torch

from rayramid.models import storage
from rayramid.models.cpu import compute_on_cpu
from rayramid.platform.training.late import Late
from rayramid.platform.training.spec.train import TrainSpec
from rayramid.platform.training.videos import Report, folder_of, newest_report, read_report, sample_videos

log = logging.getLogger(__name__)


class VideoTasks:
    """One task at a time, each of which samples the checkpoint that is the newest when it begins.

    Attributes:
        made: step of the newest videos, 0 before any.
    """

    def __init__(self, spec: TrainSpec) -> None:
        self._spec, self._videos = spec, spec.videos
        self._task: ray.ObjectRef | None = None
        made = newest_report(spec.output) if spec.videos.prompts else None
        # Whoever was to write it may have died.
        self._found = [_late(spec.output, made)] if made else []
        self.made = self._begun = int(made["step"]) if made else 0

    def tend(self, step: int) -> list[Late]:
        """Begins a task if one is due and none is running; returns what came of those that have ended since.

        Args:
            step: of the newest checkpoint.
        """
        if not self._videos.prompts:
            return []
        self._await(0)
        if self._task is None and step // self._videos.every > self._begun // self._videos.every:
            self._begin(step)
        return self._take()

    def finish(self) -> list[Late]:
        """After the last step: what comes of the task that is running, and the videos of the last checkpoint.

        Takes `patience` seconds at most; what is not done by then is given up.
        """
        if not self._videos.prompts:
            return []
        deadline = time.monotonic() + self._videos.patience
        self._await(self._videos.patience)
        made = read_report(self._spec.output, self._spec.steps)
        if made is not None:
            self._found.append(_late(self._spec.output, made))
        elif self._task is None:
            self._begin(self._spec.steps)
            self._await(max(deadline - time.monotonic(), 0))
        if self._task is not None:
            self.close()
            self._failed(f"not done {self._videos.patience:g} s after the last step (videos.patience)")
        return self._take()

    def close(self) -> None:
        """Ends a task that is running."""
        if self._task is not None:
            ray.cancel(self._task, force=True)
            self._task = None

    def _begin(self, step: int) -> None:
        options = {"num_cpus": self._videos.cpus, "num_gpus": self._videos.gpus, "max_retries": 0, "max_calls": 1}
        self._task = ray.remote(**options)(_sample).remote(self._spec.model_dump(mode="json"))
        self._begun = step

    def _await(self, seconds: float) -> None:
        if self._task is None or not ray.wait([self._task], timeout=seconds)[0]:
            return
        task, self._task = self._task, None
        try:
            report: Report = ray.get(task)
        except ray.exceptions.RayTaskError as failed:
            self._failed(f"{type(failed.cause).__name__}: {failed.cause}")
        except ray.exceptions.RayError as failed:
            self._failed(str(failed))
        else:
            self.made = self._begun = report["step"]
            self._found.append(_late(self._spec.output, report))

    def _failed(self, cause: str) -> None:
        line = " ".join(cause.split("\n")[0].split())
        log.warning("no videos of step %d: %s", self._begun, line)
        self._found.append(Late(self._begun, {"videos_failed": line}))

    def _take(self) -> list[Late]:
        found, self._found = self._found, []
        return found

    def __enter__(self) -> "VideoTasks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends a task that is running."""
        self.close()


def _late(output: str, report: Report) -> Late:
    folder = folder_of(output, report["step"])
    videos = {f"videos/prompt-{i}": storage.join(folder, each["video"]) for i, each in enumerate(report["prompts"])}
    return Late(report["step"], {"videos": report["mean"]}, videos)


def _sample(spec_fields: dict[str, Any]) -> Report:
    """The task, in a process of its own."""
    spec = TrainSpec.model_validate(spec_fields)
    if spec.videos.gpus:
        return sample_videos(spec, spec.videos, torch.device("cuda"))
    compute_on_cpu(max(1, int(spec.videos.cpus)))
    if spec.videos.cpus == 0:
        # It shares the workers' cores, and they go first.
        os.nice(10)
    return sample_videos(spec, spec.videos, torch.device("cpu"))
