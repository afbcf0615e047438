"""VAE training from a spec: checks everything before any worker starts, trains, tells where the VAE is."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rayramid.models import storage
from rayramid.models.checkpoint import git_revision
from rayramid.models.errors import UserError
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.outcome import StoppedError
from rayramid.platform.training.run import difference
from rayramid.platform.training.trackers import check_trackers
from rayramid.platform.training.vae.clips import note_clips
from rayramid.platform.training.vae.dry_run import DryRun, examine
from rayramid.platform.training.vae.export import CARD, exported, folder_of
from rayramid.platform.training.vae.perceptual import why_off
from rayramid.platform.training.vae.spec import VAESpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VAEResult:
    """What a finished run leaves.

    Attributes:
        folder: the VAE, for `encode.vae` of a data spec.
        steps: optimiser steps in all.
        final_loss: the last one written to the metrics.
        quality: of the averaged weights: `psnr`, `ssim`, `lpips`, each also by frame.
        fingerprint: of the VAE.
        metrics: the JSON lines.
        tensorboard: the folder of TensorBoard events.
    """

    folder: str
    steps: int
    final_loss: float
    quality: dict[str, Any]
    fingerprint: str
    metrics: str
    tensorboard: str

    def lines(self) -> list[str]:
        """For people: how good it is, where everything is, and what to try next."""
        by_frame = self.quality.get("psnr_by_frame", {})
        measured = ", ".join(
            f"{label} {self.quality[name]:.{digits}f}"
            for name, label, digits in (("psnr", "PSNR", 2), ("ssim", "SSIM", 4), ("lpips", "LPIPS", 4))
            if name in self.quality
        )
        which = "held-out clips" if self.quality["split"] == "val" else "training clips (none are held out)"
        worst = f"; the worst frame position has {min(by_frame.values()):.2f} dB" if by_frame else ""
        return [
            f"trained {self.steps} steps, loss {self.final_loss:.4f}",
            f"quality  {measured} on {self.quality['clips']} {which}{worst}",
            f"VAE      {self.folder} ({self.fingerprint})",
            f"metrics  {self.metrics}",
            f"curves   tensorboard --logdir {self.tensorboard}",
            f"next: rayramid data run SPEC --set encode.vae={self.folder}",
        ]


def train(
    spec: VAESpec,
    on_progress: Callable[[int, int, str], None] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> VAEResult:
    """Trains `spec` on the Ray cluster that this process is connected to, and exports the VAE.

    The same call continues a run that was stopped, at its newest checkpoint.

    Args:
        spec: the run.
        on_progress: called with (step, steps in all, how it goes).
        stopping: asked now and then; True ends the run at a checkpoint.

    Raises:
        UserError: the spec can't be trained as it is, the output holds another run, or training met a user's mistake.
        RunFailedError: machines failed more often than the spec bears.
        StoppedError: as `stopping` wished.
    """
    from rayramid.platform.training.trainer import fit

    check_trackers(spec.metrics)
    storage.check_writable(spec.output)
    reason = why_off(spec.losses.perceptual)
    if reason is not None:
        log.warning(reason)
    examine(spec)
    settle(spec)
    if exported(spec) is None and not fit(spec, on_progress, stopping):
        stopped = checkpoints.latest(storage.join(spec.output, "checkpoints"))
        raise StoppedError(stopped.step if stopped else 0)
    card = json.loads(storage.read_bytes(storage.join(folder_of(spec), CARD)))
    records = [record for record in read_metrics(spec.output) if "loss" in record]
    return VAEResult(
        folder=folder_of(spec),
        steps=spec.steps,
        final_loss=float(records[-1]["loss"]),
        quality=card["quality"],
        fingerprint=card["fingerprint"],
        metrics=storage.join(spec.output, "metrics.jsonl"),
        tensorboard=storage.join(spec.output, "tensorboard"),
    )


def dry_run(spec: VAESpec) -> DryRun:
    """What `spec` would do, refused as `train` would refuse it, but for data that is not there yet; writes nothing."""
    return examine(spec, without_data=True)


def settle(spec: VAESpec) -> None:
    """Notes the run and its clips at its output.

    Raises:
        UserError: the output holds a run that computes something else; names what differs.
    """
    url = storage.join(spec.output, "run.json")
    fields = spec.model_dump(mode="json")
    if storage.exists(url):
        before = json.loads(storage.read_bytes(url))["spec"]
        different = difference(_numbers(before), _numbers(fields)) if before["kind"] == "vae" else "kind"
        if different is not None:
            raise UserError(
                f"{spec.output} holds a run that differs in {different}; choose another output, or go on as it began"
            )
    note_clips(spec)
    note = {"format_version": 1, "spec": fields, "git_revision": git_revision()}
    storage.write_atomic(url, json.dumps(note, indent=1).encode())


def _numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """What decides the numbers of a run: not how clips are shared over workers, nor how files are read."""
    shared = {"time_split", "clips_at_once"}
    phases = [{key: value for key, value in phase.items() if key not in shared} for phase in fields["phases"]]
    return {key: value for key, value in fields.items() if key not in {"decode", "statistics"}} | {"phases": phases}
