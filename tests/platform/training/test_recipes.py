"""The recipes for one small card train and export as they are written, on a release in small and a CPU."""

import sys
from pathlib import Path

import pytest
import torch
from released import write_release

from rayramid.models.checkpoint import load_model
from rayramid.models.importers.release import open_release
from rayramid.platform.spec import load_spec
from rayramid.platform.training.export import export
from rayramid.platform.training.loop import run
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle
from rayramid.platform.training.spec.train import TrainSpec

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from processes import in_processes

RECIPES = Path(__file__).parents[3] / "infra" / "specs"


def in_small(name, dataset, tmp_path):
    """The recipe on other data and weights, and for two steps."""
    write_release(tmp_path / "release")
    fields = load_spec(RECIPES / f"{name}.yaml").model_dump(mode="json")
    # A transformer alone knows no VAE, so that any latents will do.
    fields["model"] |= {"start": str(tmp_path / "release" / "diffusion_transformer_384p"), "variant": None}
    fields["phases"][0] |= {"data": [dataset], "steps": 2, "tokens_per_bin": 1024, "schedule": {}}
    fields |= {"output": str(tmp_path / "run"), "workers": {}}
    return settle(TrainSpec.model_validate(fields))


def train(rank, fields):
    run(TrainSpec.model_validate(fields), Ranks.here(torch.device("cpu")), lambda step, record: None)


@pytest.mark.parametrize(
    ("name", "conditioning"), [("lora-24gb", "official"), ("finetune-24gb", "shared_context")], ids=["lora", "finetune"]
)
def test_it_trains_a_released_model(name, conditioning, dataset, tmp_path):
    spec = in_small(name, dataset, tmp_path)
    in_processes(train, 1, tmp_path, spec.model_dump(mode="json"))
    trained = load_model(export(spec)).dit
    released = open_release(str(tmp_path / "release")).dit()
    assert trained.config.conditioning == conditioning
    assert not torch.equal(trained.double_blocks[0].video.qkv.weight, released.double_blocks[0].video.qkv.weight)
    assert torch.equal(trained.patch_in.weight, released.patch_in.weight) is (conditioning == "official")
