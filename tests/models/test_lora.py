"""Adapters in a model's weights: the scaled product, and what is said of those that do not fit."""

import json

import pytest
import torch

from rayramid.models.adapter import CONFIG, adapter_digest, is_adapter
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.lora import merge_adapter, save_adapter
from rayramid.models.presets import preset

LAYER = "double_blocks.0.video.qkv"
CONFIGURATION = {"peft_type": "LORA", "r": 1, "lora_alpha": 3.0, "bias": "none"}


@pytest.fixture
def dit():
    return DiT(preset("tiny"))


def pair(dit, layer=LAYER, rank=1):
    rows, columns = dict(dit.named_parameters())[f"{layer}.weight"].shape
    return {
        f"{layer}.lora_A.weight": torch.arange(rank * columns, dtype=torch.float32).reshape(rank, columns),
        f"{layer}.lora_B.weight": torch.ones(rows, rank),
    }


def test_merging_adds_the_scaled_product_to_the_adapted_layer_alone(dit, tmp_path):
    before = {name: weight.clone() for name, weight in dit.state_dict().items()}
    save_adapter(str(tmp_path / "adapter"), pair(dit), CONFIGURATION)
    assert is_adapter(str(tmp_path / "adapter"))
    merge_adapter(dit, str(tmp_path / "adapter"))
    after = dit.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{LAYER}.weight"}
    # Of rank 1: every row gets 3/1 times (0, 1, 2, ...).
    columns = torch.arange(before[f"{LAYER}.weight"].shape[1])
    expected = (before[f"{LAYER}.weight"] + 3.0 * columns).detach()
    torch.testing.assert_close(after[f"{LAYER}.weight"], expected)


def test_the_digest_tells_weights_and_settings_apart(dit, tmp_path):
    one, other, scaled = (str(tmp_path / name) for name in ("one", "other", "scaled"))
    save_adapter(one, pair(dit), CONFIGURATION)
    save_adapter(other, {name: each + 1 for name, each in pair(dit).items()}, CONFIGURATION)
    save_adapter(scaled, pair(dit), {**CONFIGURATION, "lora_alpha": 4.0})
    assert len({adapter_digest(each) for each in (one, other, scaled)}) == 3


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda c, t: c.update(r=2), "do not fit its weights"),
        (lambda c, t: c.update(use_dora=True), "plain LoRA is"),
        (lambda c, t: c.update(peft_type="IA3"), "peft_type"),
        (lambda c, t: t.pop(f"{LAYER}.lora_B.weight"), r"lora_B\.weight is missing"),
        (lambda c, t: t.update({"blocks.9.qkv.lora_A.weight": torch.ones(1)}), r"no layer blocks\.9\.qkv"),
        (lambda c, t: t.update({f"{LAYER}.lora_magnitude_vector": torch.ones(1)}), "not one of"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_in_one_line(dit, tmp_path, break_it, message):
    config, tensors = dict(CONFIGURATION), pair(dit)
    break_it(config, tensors)
    save_adapter(str(tmp_path), tensors, config)
    with pytest.raises(UserError, match=message):
        merge_adapter(dit, str(tmp_path))


def test_a_folder_without_settings_is_no_adapter(dit, tmp_path):
    save_adapter(str(tmp_path), pair(dit), CONFIGURATION)
    (tmp_path / CONFIG).unlink()
    with pytest.raises(UserError, match="no adapter, it has no adapter_config"):
        merge_adapter(dit, str(tmp_path))
    (tmp_path / CONFIG).write_text(json.dumps({"r": 1}))
    with pytest.raises(UserError, match="peft_type: Field required"):
        merge_adapter(dit, str(tmp_path))
