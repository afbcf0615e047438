"""The two published DiTs: forwards, a whole training step and its gradients, from stored weights and inputs.

Raw network outputs are compared, before the sign is turned to end - start.
"""

import dataclasses
import math

import pytest
import torch

from rayramid.models.errors import UserError
from rayramid.models.importers.dit import architecture_of, dit_from_published, dit_to_published
from rayramid.models.objective import Targets, objective
from rayramid.models.sequence import Clip, Piece, Prompt, assemble

DITS = pytest.mark.golden("mmdit", "flux")


def load(golden, case="", weights=None):
    """The stored model with the attention of the case: one file holds causal and bidirectional cases."""
    config = dict(golden.config)
    if "noncausal" in case or "use_temporal_causal=False" in golden.cases.get(case, {}).get("what", ""):
        config["use_temporal_causal"] = False
    frames_per_unit = None if not config["use_temporal_causal"] else 1
    return dit_from_published(
        config,
        golden.weights() if weights is None else weights,
        str(golden.path),
        levels=golden.meta["scheduler"]["stages"],
        frames_per_unit=frames_per_unit,
    )


def rows(golden, case, columns, levels):
    """One clip per sample, in column order; row `sample * columns + column` of the text belongs to it."""
    text, mask = golden[f"{case}.in.text"], golden[f"{case}.in.text_mask"].bool()
    pooled, timestep = golden[f"{case}.in.pooled"], golden[f"{case}.in.timestep"]
    # Levels in official conditioning are relative: the coarsest history is at the coarsest level.
    coarsest = min(clip.shape[-1] for clips in columns for clip in clips)
    clips = []
    for column, tensors in enumerate(columns):
        for sample in range(len(tensors[0])):
            row = sample * len(columns) + column
            pieces, start = [], 0
            for unit, tensor in enumerate(tensors):
                latent_CTHW = tensor[sample]
                level = levels - 1 - int(math.log2(latent_CTHW.shape[-1] // coarsest))
                kind = "target" if unit == len(tensors) - 1 else "context"
                pieces.append(Piece(kind, unit, level, latent_CTHW, float(timestep[row]), start))
                start += latent_CTHW.shape[1]
            clips.append(Clip((Prompt(text[row][mask[row]], pooled[row]),), tuple(pieces)))
    return clips


def by_column(outputs, columns):
    """Per column [b, C, T, h, w]."""
    outputs = iter(outputs)
    return [torch.stack([next(outputs) for _ in tensors[0]]) for tensors in columns]


@DITS
def test_forward(golden, case):
    dit, columns = load(golden, case), golden.clips(case)
    with torch.no_grad():
        outputs = dit.network(assemble(rows(golden, case, columns, dit.config.levels), dit.config))
    for column, output in enumerate(by_column(outputs, columns)):
        golden.check(output, f"{case}.out.{column}")


@pytest.mark.golden("mmdit", "flux", cases="c_train")
def test_training_step(golden, case, official_pyramid, training_columns):
    """Latents and random numbers -> noisy clips, timesteps, targets -> loss -> gradients of every parameter."""
    dit = load(golden, case).train()
    pyramid = official_pyramid(golden.meta["scheduler"])
    # A first unit is one latent whatever the others are.
    meta = golden.cases[case]
    frames_per_unit = max(clip_shapes[-1][2] for clip_shapes in meta["clip_shapes"])
    corruption = meta.get("corrupt_ratio", 1 / 3)
    columns = training_columns(golden, case, pyramid, frames_per_unit=frames_per_unit, corruption=corruption)
    for number, column in enumerate(columns):
        golden.check(-column.velocity, f"{case}.target.{number}", within=1e-6)
        for place, clip in enumerate(column.clips):
            golden.check(clip, f"{case}.in.clip.{number}.{place}", within=1e-6)
    told = torch.stack([column.timestep for column in columns], 1).flatten()
    golden.check(told, f"{case}.in.timestep", within=1e-6)

    clips = rows(golden, case, [column.clips for column in columns], dit.config.levels)
    velocities = [velocity for column in columns for velocity in column.velocity]
    levels = [column.level for column in columns for _ in column.velocity]
    targets = Targets(tuple(velocities), (0,) * len(levels), tuple(levels), (0.5,) * len(levels))
    loss = objective(dit(assemble(clips, dit.config)), targets).mean
    golden.check(loss, f"{case}.loss")

    loss.backward()
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in dit.named_parameters()
    }
    published = architecture_of(dit.config).to_published(gradients, dit.config)
    for key in golden.under(f"{case}.grad."):
        golden.check(published[key], f"{case}.grad.{key}")
    for key, norm in golden.meta["scalars"][f"{case}.grad_norms"].items():
        assert published[key].norm().item() == pytest.approx(norm, rel=1e-5, abs=1e-7), key


@DITS
def test_weights_go_back_to_the_published_layout_bit_for_bit(golden):
    stored = golden.weights()
    _, weights = dit_to_published(load(golden))
    assert weights.keys() == stored.keys()
    for key, tensor in stored.items():
        assert weights[key].dtype == tensor.dtype, key
        assert torch.equal(weights[key], tensor), key


@DITS
def test_configuration_survives_the_round_trip(golden):
    dit = load(golden)
    config, weights = dit_to_published(dit)
    again = dit_from_published(config, weights, "again", levels=dit.config.levels)
    assert dataclasses.asdict(again.config) == dataclasses.asdict(dit.config)


@DITS
def test_one_wrong_weight_fails_the_comparison(golden):
    """What the tests above rest on: a hundredth of the smallest layer moves outputs beyond the tolerance."""
    case = next(iter(golden.cases))
    weights = golden.weights()
    key = next(key for key in weights if key.endswith("attn.norm_q.weight"))
    wrong = load(golden, case, {**weights, key: weights[key] * 1.01})
    columns = golden.clips(case)
    with torch.no_grad():
        outputs = wrong.network(assemble(rows(golden, case, columns, wrong.config.levels), wrong.config))
    with pytest.raises(AssertionError, match=r"out\.0 differs by relative RMS"):
        golden.check(by_column(outputs, columns)[0], f"{case}.out.0")


@DITS
def test_each_defect_of_a_state_dict_names_file_and_key(golden):
    weights = golden.weights()
    key = "transformer_blocks.0.attn.to_k.weight"
    defects = [
        ({k: v for k, v in weights.items() if k != key}, rf"{golden.name}.*key {key} is missing"),
        ({**weights, "extra.weight": torch.ones(1)}, rf"{golden.name}.*key extra\.weight belongs to no part"),
        ({**weights, key: weights[key][:, 1:]}, rf"{golden.name}.*{key} has shape"),
    ]
    for bad, message in defects:
        with pytest.raises(UserError, match=message):
            load(golden, weights=bad)
