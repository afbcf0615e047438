"""Checkpoints written beside the training, one at a time."""

import logging
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from rayramid.models.errors import UserError
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.checkpoint import Checkpoint, TakenError
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.spec.run import Checkpoints

log = logging.getLogger(__name__)

# Longer than any upload: a rank that has died is noticed at once, by its closed connections.
_PATIENCE = timedelta(hours=2)


class Saver:
    """Copies the state, and lets a thread write the copy while training goes on.

    The copy is kept and filled anew each time. The thread has a process group of its own, so that its collectives and
    the training's don't meet. All ranks make the same calls in the same order.
    """

    def __init__(
        self, folder: str, settings: Checkpoints, ranks: Ranks, on_committed: Callable[[int], None] = lambda step: None
    ) -> None:
        self._folder, self._settings, self._ranks = folder, settings, ranks
        self._attempt = ranks.agree(uuid.uuid4().hex[:12])
        self._group = _own_group() if ranks.world > 1 else None
        pinned = ranks.device.type == "cuda"
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=pinned,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=pinned,
            )
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._newest: tuple[dict[str, Any], Checkpoint]
        self._under_way: Future[None] | None = None
        self._failures = 0
        self._on_committed = on_committed

    def begin(self, tensors: dict[str, Any], checkpoint: Checkpoint) -> None:
        """Starts to write what `tensors` hold now; waits for the checkpoint before, if that is still being written.

        Args:
            tensors: of the state; may change as soon as this returns.
            checkpoint: what the marker will say; `data` and `files` are filled in.

        Raises:
            UserError: as `wait`.
        """
        self.wait()
        named = replace(checkpoint, data=f"step-{checkpoint.step:08d}.{self._attempt}")
        staged = self._stager.stage(tensors)
        assert isinstance(staged, dict), "staged here, not in a thread"
        self._newest = staged, named
        self._under_way = self._thread.submit(self._write, *self._newest)

    def wait(self) -> bool:
        """Waits until nothing is being written; whether the newest checkpoint was committed.

        Raises:
            UserError: more checkpoints in a row failed than the spec bears, or another run writes to the same place.
        """
        if self._under_way is not None:
            written, self._under_way = self._under_way, None
            try:
                written.result()
            except TakenError:
                raise
            except UserError as problem:
                self._failures += 1
                if self._failures > self._settings.failures:
                    raise UserError(f"{problem}; {self._failures} checkpoints in a row could not be written") from None
            else:
                self._failures = 0
        return self._failures == 0

    def finish(self) -> None:
        """Waits until the checkpoint begun last is committed; writes it again as often as failures are borne.

        Raises:
            UserError: as `wait`.
        """
        while not self.wait():
            self._under_way = self._thread.submit(self._write, *self._newest)

    def _write(self, staged: dict[str, Any], checkpoint: Checkpoint) -> None:
        try:
            checkpoints.save(self._folder, staged, checkpoint, self._group)
        except UserError as problem:
            if self._ranks.is_first:
                log.warning("no checkpoint of step %d: %s", checkpoint.step, problem, extra={"step": checkpoint.step})
                self._remove(lambda: checkpoints.discard(self._folder, checkpoint.data))
            raise
        if self._ranks.is_first:
            log.info("checkpoint of step %d written", checkpoint.step, extra={"step": checkpoint.step})
            self._on_committed(checkpoint.step)
            keep_last, keep_every = self._settings.keep_last, self._settings.keep_every
            self._remove(lambda: checkpoints.prune(self._folder, keep_last, keep_every))

    def _remove(self, removal: Callable[[], None]) -> None:
        """Deletes what is not needed; what can't be deleted now is deleted after a later checkpoint."""
        try:
            removal()
        except UserError as problem:
            log.warning("not deleted yet: %s", problem)

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for what is being written, whatever ended the training."""
        self._thread.shutdown()
        self._stager.close()


def _own_group() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(group, dist.ProcessGroup), "all ranks are in it"
    return group
