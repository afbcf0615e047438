"""The DiT as a module: precision, memory options, compilation, refusals, and the paper's baselines by configuration."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from devices import NEAR, on_cuda
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rayramid.models.cache import Cache
from rayramid.models.dit import blocks
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.objective import TrainingClip, objective, training_pack
from rayramid.models.pyramid import Pyramid
from rayramid.models.sequence import Clip, Pack, Piece, Prompt, assemble

CONFIG = DiTConfig(
    heads=2,
    head_dim=8,
    double_blocks=1,
    single_blocks=1,
    text_dim=6,
    pooled_dim=5,
    rope_axes=(4, 2, 2),
    latent_channels=3,
    levels=2,
)


# Kernels of CUDA want 16 numbers per head or more.
WIDE = dataclasses.replace(CONFIG, head_dim=16, rope_axes=(8, 4, 4))


def random_dit(config: DiTConfig = CONFIG) -> DiT:
    dit = DiT(config)
    generator = torch.Generator().manual_seed(1)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return dit


def clip(latents: int = 3, units: int = 2, first_unit: int = 1) -> TrainingClip:
    generator = torch.Generator().manual_seed(2)
    latent = torch.randn(3, latents, 8, 8, generator=generator)
    text, pooled = torch.randn(4, 6, generator=generator), torch.randn(5, generator=generator)
    return TrainingClip(latent, text, pooled, first_unit, units, key=7)


def small_pack(config: DiTConfig = CONFIG) -> Pack:
    return training_pack([clip()], config, Pyramid(levels=config.levels), seed=0)[0]


def gradients(dit: DiT, pack: Pack) -> dict[str, Tensor]:
    dit.zero_grad()
    torch.stack([velocity.square().mean() for velocity in dit(pack)]).sum().backward()
    return {name: parameter.grad for name, parameter in dit.named_parameters() if parameter.grad is not None}


def test_configuration_round_trips_through_json() -> None:
    parts = dataclasses.replace(CONFIG, conditioning="official", shared_parts=("own_time", "one_grid"))
    for config in (CONFIG, parts):
        assert DiTConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_axes": (4, 2, 4)}, "add up to head_dim 8"),
        ({"rope_axes": (5, 2, 1)}, "three even numbers"),
        ({"conditioning": "mine"}, "must be shared_context or official"),
        ({"causal": False}, "needs conditioning official"),
        ({"shared_parts": ("roles",)}, "need conditioning official; shared_context has all of them"),
        ({"conditioning": "official", "shared_parts": ("own_cache",)}, "among own_time, own_text, one_grid, roles"),
        ({"conditioning": "official", "shared_parts": ("roles", "roles")}, "each once"),
        ({"history_units": 0}, "history_units 0 must be at least 1"),
        ({"frames_per_unit": 0}, "frames_per_unit 0 must be at least 1"),
        ({"levels": 0}, "levels 0"),
        ({"position_table": 8}, "position_base"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_a_new_model_predicts_zero_and_all_of_it_trains_by_the_third_step() -> None:
    dit = DiT(CONFIG)
    pack, targets = training_pack([clip()], CONFIG, Pyramid(levels=2), seed=0)
    assert all(bool((velocity == 0).all()) for velocity in dit(pack))
    trained = []
    for _ in range(3):
        dit.zero_grad()
        objective(dit(pack), targets).mean.backward()
        trained.append({name for name, p in dit.named_parameters() if p.grad is not None and bool(p.grad.any())})
        with torch.no_grad():
            for parameter in dit.parameters():
                parameter -= 0.1 * parameter.grad
    # The output moves first, then the open gates let the blocks train, then their modulation the timestep's embedding.
    assert trained[0] == {"head.out.weight", "head.out.bias"}
    assert all(f"{block}.qkv.weight" in trained[1] for block in ("double_blocks.0.text", "double_blocks.0.video"))
    assert trained[2] == {name for name, _ in dit.named_parameters()}


def test_float64_passes_through_unrounded() -> None:
    dit, pack = random_dit(), small_pack()
    double = random_dit().double()
    for single, exact in zip(dit(pack), double(pack), strict=True):
        assert exact.dtype == torch.float64
        torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-4)


def test_under_bf16_autocast_residual_norms_and_attention_stay_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[torch.dtype]] = {"residual": set(), "normalised": set(), "attention": set()}
    add_gated, normalise, attend = blocks.add_gated, blocks.normalise, blocks.attend

    def watch(name: str, value: Tensor) -> Tensor:
        seen[name].add(value.dtype)
        return value

    monkeypatch.setattr(blocks, "add_gated", lambda *args: watch("residual", add_gated(*args)))
    monkeypatch.setattr(blocks, "normalise", lambda *args: watch("normalised", normalise(*args)))
    monkeypatch.setattr(blocks, "attend", lambda *args: watch("attention", attend(*args)))
    dit, pack = random_dit(), small_pack()
    exact = dit(pack)
    assert seen == {"residual": {torch.float32}, "normalised": {torch.float32}, "attention": {torch.float32}}
    with torch.autocast("cpu", torch.bfloat16):
        rounded = dit(pack)
    assert seen == {"residual": {torch.float32}, "normalised": {torch.float32}, "attention": {torch.float32}}
    for low, high in zip(rounded, exact, strict=True):
        assert low.dtype == torch.float32
        assert 0 < (low - high).norm() / high.norm() < 0.03


def test_keys_and_values_are_cached_in_one_dtype_and_used_again_under_autocast() -> None:
    dit, cache = random_dit(), Cache(2)
    prompt = Prompt(torch.zeros(2, 6), torch.zeros(5))
    first = Piece("context", 0, 0, torch.ones(3, 1, 8, 8), 0.0, 0)
    target = Piece("target", 1, 0, torch.ones(3, 1, 8, 8), 500.0, 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (whole,) = dit(assemble([Clip((prompt,), (first, target))], CONFIG))
        dit(assemble([Clip((prompt,), (first,))], CONFIG), [cache])
        assert {tensor.dtype for block in (0, 1) for part in cache.past(block) for tensor in part} == {torch.float32}
        (cached,) = dit(assemble([Clip((Prompt(None, prompt.pooled_P),), (target,))], CONFIG), [cache])
    assert (cached - whole).norm() / whole.norm() < 0.01


def test_timesteps_are_told_in_fp32_even_to_a_bf16_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from rayramid.models.dit import model

    told: list[Tensor] = []
    waves = model.timestep_waves
    monkeypatch.setattr(model, "timestep_waves", lambda t: told.append(t) or waves(t))  # type: ignore[func-returns-value]
    prompt = Prompt(torch.zeros(2, 6), torch.zeros(5))
    target = Piece("target", 0, 0, torch.zeros(3, 1, 8, 8), 971.58, 0)
    random_dit().bfloat16()(assemble([Clip((prompt,), (target,))], CONFIG))
    # bf16 would say 972.
    assert told[0].tolist() == [0.0, pytest.approx(971.58, abs=1e-4)]
    assert told[0].dtype == torch.float32


@pytest.mark.parametrize(("recompute", "products_again"), [("full", True), ("selective", False)])
def test_activation_checkpointing_changes_no_gradient_and_selective_multiplies_nothing_twice(
    recompute: str, products_again: bool
) -> None:
    pack = small_pack()

    def flops_and_gradients(mode: str) -> tuple[int, int, dict[str, Tensor]]:
        dit = random_dit().double()
        dit.recompute = mode  # type: ignore[assignment]
        saved: list[int] = []
        counter = FlopCounterMode(display=False)
        with counter, torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):  # type: ignore[func-returns-value]
            result = gradients(dit, pack)
        return counter.get_total_flops(), sum(saved), result

    flops, saved, mine = flops_and_gradients(recompute)
    plain_flops, plain_saved, expected = flops_and_gradients("none")
    assert (flops > plain_flops) is products_again
    assert saved < 0.7 * plain_saved
    for name, gradient in expected.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("executor", ["sdpa", "flex"])
def test_the_blocks_are_one_graph(executor: str) -> None:
    """Captured whole (fullgraph), for each executor; code generation is the slow test's."""
    dit, pack = random_dit(), small_pack()
    expected = dit(pack)
    dit.executor = executor  # type: ignore[assignment]
    dit.run_blocks = torch.compile(dit.run_blocks, fullgraph=True, backend="eager")  # type: ignore[method-assign]
    with torch.no_grad():
        for mine, theirs in zip(dit(pack), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]), on_cuda()]
)
@pytest.mark.parametrize("executor", ["sdpa", "flex"])
def test_compiled_blocks_give_the_same_velocities_and_gradients(executor: str, device: str) -> None:
    dit, pack = random_dit(WIDE), small_pack(WIDE)
    expected, expected_gradients = dit(pack), gradients(dit, pack)
    dit.to(device).executor = executor  # type: ignore[assignment]
    # One block of each kind.
    dit.compile_blocks()
    near = NEAR if device == "cuda" else {"rtol": 1e-3, "atol": 1e-4}
    # flex_attention has no backward on CPUs.
    trains = executor == "sdpa" or device == "cuda"
    with torch.set_grad_enabled(trains):
        for mine, theirs in zip(dit(pack), expected, strict=True):
            torch.testing.assert_close(mine.cpu(), theirs, **near)
    if trains:
        for name, gradient in gradients(dit, pack).items():
            torch.testing.assert_close(gradient.cpu(), expected_gradients[name], **near)


@pytest.mark.parametrize("device", ["cpu", on_cuda()])
def test_weights_in_bf16_give_velocities_near_those_in_fp32(device: str) -> None:
    dit, pack = random_dit(WIDE), small_pack(WIDE)
    with torch.no_grad():
        exact = dit(pack)
        rounded = dit.to(device, torch.bfloat16)(pack)
    for low, high in zip(rounded, exact, strict=True):
        assert low.dtype == torch.float32
        assert 0 < (low.cpu() - high).norm() / high.norm() < 0.03


def test_a_model_can_be_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        dit = DiT(CONFIG)
    dit.load_state_dict(random_dit().state_dict(), assign=True)
    for loaded, original in zip(dit(small_pack()), random_dit()(small_pack()), strict=True):
        assert torch.equal(loaded, original)


def test_missing_or_repeated_context_is_refused() -> None:
    dit = random_dit()
    prompt = Prompt(torch.zeros(2, 6), torch.zeros(5))
    first = Piece("context", 0, 0, torch.zeros(3, 1, 8, 8), 0.0, 0)
    target = Piece("target", 1, 0, torch.zeros(3, 1, 8, 8), 500.0, 1)
    dit(assemble([Clip((prompt,), (first, target))], CONFIG))
    for pieces, tokens in (
        ((target,), prompt),
        ((first, first, target), prompt),
        ((first, target), Prompt(None, prompt.pooled_P)),
    ):
        with pytest.raises(ValueError, match="text and context must be in pack or cache, each once"):
            dit(assemble([Clip((tokens,), pieces)], CONFIG))


def test_caches_are_refused_where_they_make_no_sense() -> None:
    official = random_dit(dataclasses.replace(CONFIG, conditioning="official"))
    with pytest.raises(ValueError, match="official conditioning has no cache"):
        official(small_pack(official.config), [Cache(2)] * 4)
    with pytest.raises(ValueError, match="2 caches for 1 clips"):
        random_dit()(small_pack(), [None, None])


def test_official_negates_the_raw_output_in_forward_only() -> None:
    dit = random_dit(dataclasses.replace(CONFIG, conditioning="official"))
    pack = small_pack(dit.config)
    for velocity, raw in zip(dit(pack), dit.network(pack), strict=True):
        assert torch.equal(velocity, -raw)
    shared = random_dit()
    assert all(torch.equal(v, raw) for v, raw in zip(shared(small_pack()), shared.network(small_pack()), strict=True))


def test_full_sequence_diffusion_is_one_unit_whose_frames_see_each_other() -> None:
    dit = random_dit(dataclasses.replace(CONFIG, frames_per_unit=None))
    made, targets = training_pack([clip(latents=4, units=1, first_unit=0)], dit.config, Pyramid(levels=2), seed=0)
    assert [tuple(v.shape) for v in targets.velocities] == [(3, 4, 4, 4), (3, 4, 8, 8)]
    last_frame_changed = dataclasses.replace(
        made, contents=(*made.contents[:-1], made.contents[-1] + torch.tensor([0.0, 0, 0, 1])[:, None, None])
    )
    assert (dit(last_frame_changed)[1][:, 0] - dit(made)[1][:, 0]).abs().max() > 1e-3


def test_plain_flow_matching_is_one_level_at_full_resolution() -> None:
    config = dataclasses.replace(CONFIG, levels=1, frames_per_unit=None)
    made, targets = training_pack([clip(units=1, first_unit=0)], config, Pyramid(levels=1), seed=0)
    assert [tuple(v.shape) for v in targets.velocities] == [(3, 3, 8, 8)]
    assert tuple(random_dit(config)(made)[0].shape) == (3, 3, 8, 8)


def test_bidirectional_attention_lets_history_see_the_target() -> None:
    for causal in (True, False):
        config = dataclasses.replace(CONFIG, conditioning="official", causal=causal)
        dit = random_dit(config)
        plan_sees = dit._sees
        context, target = (small_pack(config).segments[index] for index in (1, 2))
        assert (context.kind, target.kind) == ("context", "target")
        assert plan_sees(context, target) is not causal
