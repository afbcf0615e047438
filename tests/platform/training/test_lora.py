"""Adapters: nothing at first, the same beside the weights as merged into them, and all that trains."""

import re
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftConfig
from pydantic import ValidationError

from rayramid.models.checkpoint import load_model
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.lora import merge_adapter
from rayramid.models.objective import TrainingClip, training_pack
from rayramid.models.presets import preset
from rayramid.models.pyramid import Pyramid
from rayramid.platform.training import lora as lora_module
from rayramid.platform.training.checkpoint import find
from rayramid.platform.training.export import export, export_adapter
from rayramid.platform.training.loop import Run, run
from rayramid.platform.training.lora import adapt, check_lora
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle
from rayramid.platform.training.spec.model import Lora
from rayramid.platform.training.spec.train import TrainSpec

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from processes import in_processes

ALONE = Ranks(1, 0, torch.device("cpu"))
EVERYWHERE = Lora(rank=2, alpha=4.0, targets=("attention", "mlp", "modulation"))


def silent(step, record):
    pass


def random_dit():
    dit = DiT(preset("tiny")).double()
    draws = torch.Generator().manual_seed(1)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=draws)
    return dit


def forward(dit):
    draws = torch.Generator().manual_seed(2)
    latent, text, pooled = (
        torch.randn(shape, generator=draws, dtype=torch.float64) for shape in ((16, 3, 8, 8), (4, 64), (64,))
    )
    clips = [TrainingClip(latent, text, pooled, first_unit=1, units=2, key=7)]
    pack, _ = training_pack(clips, dit.config, Pyramid(levels=3), seed=0)
    with torch.no_grad():
        return torch.cat([velocity.flatten() for velocity in dit(pack)])


def test_fresh_adapters_change_nothing_beside_the_weights_or_merged_into_them():
    dit, expected = random_dit(), random_dit()
    adapters = adapt(dit, EVERYWHERE)
    assert torch.equal(forward(dit), forward(expected))
    adapters.merge_and_unload()
    assert all(torch.equal(weight, expected.state_dict()[name]) for name, weight in dit.state_dict().items())
    assert set(dit.state_dict()) == set(expected.state_dict())


def test_merged_adapters_do_what_they_do_beside_the_weights():
    dit = random_dit()
    before = forward(dit)
    adapters = adapt(dit, EVERYWHERE)
    trained = [parameter for parameter in dit.parameters() if parameter.requires_grad]
    for parameter in trained:
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(3))
    beside = forward(dit)
    assert (beside - before).norm() > 0.01 * before.norm()
    adapters.merge_and_unload()
    torch.testing.assert_close(forward(dit), beside, rtol=1e-10, atol=1e-12)
    # Two matrices for each of 5 layers of 4 streams, and of 4 layers of 2 single blocks.
    assert len(trained) == 2 * (2 * 2 * 5 + 2 * 4)


def test_only_targets_are_adapted():
    dit = random_dit()
    adapt(dit, Lora(targets=("mlp",)))
    layers = {name.split(".lora_")[0].partition(".")[2] for name, p in dit.named_parameters() if p.requires_grad}
    assert {layer.partition(".")[2] for layer in layers} == {
        "text.mlp.up",
        "text.mlp.down",
        "video.mlp.up",
        "video.mlp.down",
        "mlp_in",
    }


@pytest.fixture
def start(spec, tmp_path):
    """A model folder to start from, none of whose weights are zero."""
    first = settle(spec(output=str(tmp_path / "first"), phase={"steps": 3}, checkpoints={"every": 3}))
    run(first, ALONE, silent)
    return export(first)


def lora_run(spec, tmp_path, start, name, **fields):
    phase = {"steps": 3, "bins_per_step": 3, "learning_rate": 0.01}
    fields = {"phase": phase, "checkpoints": {"every": 3}, "precision": "float64"} | fields
    return settle(spec(output=str(tmp_path / name), model={"start": start}, lora={"rank": 2}, **fields))


def test_a_run_trains_and_saves_adapters_alone_and_exports_an_ordinary_model(spec, tmp_path, start):
    tuned = lora_run(spec, tmp_path, start, "tuned")
    run(tuned, ALONE, silent)
    here = Run(tuned, ALONE)
    assert all("lora_" in name for part in ("model", "ema") for name in here.state.tensors()[part])
    small, large = (sum(find(output)[1].files.values()) for output in (tuned.output, str(tmp_path / "first")))
    assert small < 0.3 * large

    before, after = load_model(start).dit.state_dict(), load_model(export(tuned)).dit.state_dict()
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    adapted = re.compile(r"(double|single)_blocks\..*(qkv|out|mlp\.up|mlp\.down|mlp_in)\.weight")
    assert changed == set(filter(adapted.fullmatch, before))

    # The adapter alone, merged without peft, makes the same model; peft itself takes it too.
    adapter = str(tmp_path / "adapter")
    export_adapter(tuned.output, adapter)
    merged = load_model(start).dit
    merge_adapter(merged, adapter)
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(weight, after[name], rtol=1e-6, atol=1e-7)
    assert PeftConfig.from_pretrained(adapter).r == 2

    # What is exported is what was trained: the average, beside the weights.
    here.resume()
    with here.state.ema.applied():
        expected = forward(here.learner.model)
    torch.testing.assert_close(forward(load_model(export(tuned)).dit.double()), expected, rtol=1e-3, atol=1e-4)


def train(rank, fields):
    run(TrainSpec.model_validate(fields), Ranks.here(torch.device("cpu")), silent)


@pytest.mark.slow
def test_two_ranks_train_the_adapters_that_one_does(spec, tmp_path, start):
    one, two = (lora_run(spec, tmp_path, start, name) for name in ("one", "two"))
    run(one, ALONE, silent)
    in_processes(train, 2, tmp_path, two.model_dump(mode="json"))
    losses = [[r["loss"] for r in read_metrics(each.output) if "loss" in r] for each in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-10)
    ends = []
    for each in (one, two):
        here = Run(each, ALONE)
        here.resume()
        ends.append(here.state.ema.average)
    for name, average in ends[0].items():
        torch.testing.assert_close(ends[1][name], average, rtol=1e-10, atol=1e-12)


def test_adapters_without_a_model_or_without_peft_are_refused(spec, monkeypatch):
    with pytest.raises(ValidationError, match=r"lora needs model\.start"):
        spec(lora={"rank": 2})
    monkeypatch.setattr(lora_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"peft is not installed; pip install 'rayramid\[lora\]'"):
        check_lora(Lora())
