"""How long training stands still for a checkpoint: `python tests/benchmarks/checkpoints.py`.

Prints one JSON line; half a minute. A state of 320 MB (20 million weights, AdamW's moments, their average) is saved
ten times to a local disk, with steps in between that take as long as a save.
- checkpoint_pause: seconds per checkpoint that are not a step's, against DCP's save that is waited for.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save

from rayramid.platform.training.checkpoint import Checkpoint
from rayramid.platform.training.ema import EMA
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.saver import Saver
from rayramid.platform.training.spec.run import Checkpoints
from rayramid.platform.training.state import TrainState

SAVES = 10


def main() -> None:
    state = a_state()
    with tempfile.TemporaryDirectory() as folder:
        waited = pauses(lambda step: save(state.tensors(), checkpoint_id=f"{folder}/plain-{step}", no_dist=True), 0.0)
        with Saver(f"{folder}/ours", Checkpoints(keep_last=1), Ranks(1, 0, torch.device("cpu"))) as saver:
            beside = pauses(lambda step: saver.begin(state.tensors(), told(step)), 1.5 * median(waited))
            saver.finish()
    ours, other = median(beside), median(waited)
    line = {"measure": "checkpoint_pause", "ratio": other / ours, "ours": ours, "other": other, "unit": "s"}
    sys.stdout.write(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}) + "\n")


def a_state() -> TrainState:
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(20)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 1024)).sum().backward()
    optimizer.step()
    return TrainState(model, [optimizer], EMA(model, 0.9))


def told(step: int) -> Checkpoint:
    return Checkpoint(step=step, skipped=0, spec={}, git_revision="", workers=1)


def pauses(begin: Callable[[int], Any], step_seconds: float) -> list[float]:
    """Seconds that `begin` takes, called between steps that leave the CPU to others, as those on a GPU do."""
    seconds = []
    for step in range(SAVES):
        began = time.perf_counter()
        begin(step)
        seconds.append(time.perf_counter() - began)
        time.sleep(step_seconds)
    return seconds


if __name__ == "__main__":
    main()
