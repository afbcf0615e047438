"""What every results file says of how it came about."""

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from rayramid.models.checkpoint import git_revision


def record(spec: BaseModel, command: str, started: float) -> dict[str, Any]:
    """Command, revision, seed (if there is one), time, machine and the whole spec.

    Args:
        spec: of the evaluation.
        command: what was typed.
        started: `time.monotonic()` when it began.
    """
    seed = {"seed": seed} if (seed := getattr(spec, "seed", None)) is not None else {}
    return {
        **made_by(command),
        **seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "spec": spec.model_dump(mode="json"),
    }


def made_by(command: str) -> dict[str, Any]:
    """Command, revision and machine."""
    return {"command": command, "revision": git_revision(), "machine": machine()}


def machine() -> dict[str, Any]:
    """What the numbers were made on."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
