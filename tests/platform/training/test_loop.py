"""The loop of one rank on the real dataset, model and storage."""

import torch

from rayramid.models.checkpoint import load_model
from rayramid.platform.training.export import export
from rayramid.platform.training.loop import run
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle

ALONE = Ranks(1, 0, torch.device("cpu"))


def test_smoke(spec):
    s = settle(spec())
    run(s, ALONE, lambda step, record: None)
    for r in read_metrics(s.output):
        print(r)
    url = export(s)
    print(load_model(url).card)
