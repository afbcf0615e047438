"""From a run, or any of its checkpoints, to a model folder; the averaged weights or those as trained."""

import subprocess
import sys

import pytest
import torch

from rayramid.models.checkpoint import load_model
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.presets import preset
from rayramid.models.vae.io import fingerprint
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.export import export_checkpoint
from rayramid.platform.training.loop import run
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle


@pytest.fixture
def trained(spec):
    """A run of four steps with checkpoints of steps 2 and 4."""
    torch.set_num_threads(1)
    settled = settle(spec(phase={"steps": 4}))
    run(settled, Ranks(1, 0, torch.device("cpu")), lambda step, record: None)
    return settled.output


def weights_in(source, part):
    folder, checkpoint = checkpoints.find(source)
    with torch.device("meta"):
        shape = DiT(preset("tiny")).patch_in.weight.shape
    tensors = {"patch_in.weight": torch.empty(shape)}
    checkpoints.load(folder, checkpoint, {part: tensors}, alone=True)
    return tensors["patch_in.weight"]


def test_any_checkpoint_is_exported_with_the_average_or_the_weights_as_trained(trained, tmp_path):
    early = f"{trained}/checkpoints/step-00000002"
    exported = {
        (source, weights): export_checkpoint(source, str(tmp_path / f"{weights}-{number}"), weights).step
        for number, source in enumerate((trained, early))
        for weights in ("ema", "raw")
    }
    assert list(exported.values()) == [4, 4, 2, 2]
    found = {
        (number, weights): load_model(str(tmp_path / f"{weights}-{number}")).dit.patch_in.weight
        for number in (0, 1)
        for weights in ("ema", "raw")
    }
    for (number, weights), weight in found.items():
        part = {"ema": "ema", "raw": "model"}[weights]
        assert torch.equal(weight, weights_in((trained, early)[number], part)), (number, weights)
    assert not torch.equal(found[0, "ema"], found[0, "raw"])
    assert not torch.equal(found[0, "raw"], found[1, "raw"])
    card = load_model(str(tmp_path / "raw-1")).card
    assert (card.step, card.spec["output"]) == (2, trained)


def test_an_export_in_bfloat16_is_half_as_large_and_says_what_it_holds(trained, tmp_path):
    whole, half = str(tmp_path / "whole"), str(tmp_path / "half")
    export_checkpoint(trained, whole)
    export_checkpoint(trained, half, dtype=torch.bfloat16)
    one, other = load_model(whole), load_model(half)
    assert {weight.dtype for part in (other.dit, other.vae) for weight in part.parameters()} == {torch.bfloat16}
    assert torch.equal(other.dit.patch_in.weight, one.dit.patch_in.weight.bfloat16())
    assert other.card.vae_fingerprint == fingerprint(other.vae) != one.card.vae_fingerprint
    assert other.card.text_fingerprint == other.text.fingerprint != one.card.text_fingerprint
    (tokens, rounded) = (
        m.text.encode(["a red circle"])[0].tokens_LD for m in (one, load_model(half, dtype=torch.float32))
    )
    assert (tokens - rounded).norm() < 0.02 * tokens.norm()
    sizes = [sum(size for name, size in m.card.files.items() if name.endswith("safetensors")) for m in (one, other)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.02)


def test_the_command_exports_a_run_and_refuses_what_is_none(trained, tmp_path):
    def export(*arguments):
        command = [sys.executable, "-m", "rayramid.platform.cli", "weights", "export", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = export(trained, str(tmp_path / "model"), "--weights", "raw")
    assert (done.returncode, done.stdout.strip()) == (0, f"{tmp_path / 'model'}: step 4, raw weights")
    refused = export(f"{trained}/checkpoints/step-00000003", str(tmp_path / "none"))
    assert refused.returncode == 2
    (line,) = refused.stderr.strip().splitlines()
    assert "step-00000003: no such checkpoint; there are [2, 4]" in line


def test_a_run_without_a_checkpoint_has_nothing_to_export(tmp_path):
    with pytest.raises(UserError, match="no checkpoint yet"):
        export_checkpoint(str(tmp_path), str(tmp_path / "model"))
