"""`rayramid train` as a user starts it: a process that can be interrupted and killed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.spec.train import TrainSpec


@contextmanager
def command(
    spec: TrainSpec, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process group of its own, with `out.txt` and `err.txt` in `folder`; killed with the context."""
    file = folder / "spec.yaml"
    file.write_text(json.dumps(spec.model_dump(mode="json")))
    with (folder / "out.txt").open("a") as out, (folder / "err.txt").open("a") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "rayramid.platform.cli", "train", str(file), *arguments],
            env=environment or os.environ,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def lines(output: str) -> list[dict[str, object]]:
    """The training's lines of metrics."""
    return [record for record in read_metrics(output) if "loss" in record]


def last_step(output: str) -> int:
    """The newest step that has a line."""
    return max((int(str(line["step"])) for line in lines(output)), default=0)
