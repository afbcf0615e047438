"""What a rank is said to hold is what it holds: weights, gradients, optimiser state and average, to the byte."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from rayramid.models.memory import PackSize, activation_bytes
from rayramid.models.presets import preset
from rayramid.platform.training.learner import Learner
from rayramid.platform.training.loop import Run
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.rank_memory import formats_of, rank_memory
from rayramid.platform.training.run import dry_run, settle
from rayramid.platform.training.spec.model import Lora

PACK = PackSize(tokens=1000, text=10, targets=500, segments=20)


@pytest.fixture
def first_of_four():
    """This process as the first of four ranks, of which the others are imagined."""
    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    yield Ranks.here(torch.device("cpu"))
    dist.destroy_process_group()


def own_bytes(tensors):
    return sum((tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes for tensor in tensors)


def held(learner):
    """Bytes of weights, gradients, optimiser state and average after a step."""
    weights = list(learner.model.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    for weight in trained:
        weight.grad = torch.zeros_like(weight)
    for optimizer in learner.state.optimizers:
        optimizer.step()
    states = [value for each in learner.state.optimizers for state in each.state.values() for value in state.values()]
    return (
        own_bytes(weights),
        own_bytes(weight.grad for weight in trained),
        own_bytes(value for value in states if isinstance(value, torch.Tensor)),
        own_bytes(learner.state.ema.average.values()),
    )


def said(memory):
    return memory.parameters, memory.gradients, memory.optimizer, memory.average


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"precision": "float64"},
        {"precision": "bfloat16"},
        *({"optimizer": {"kind": k}} for k in ("muon", "adamw8bit")),
    ],
    ids=["adamw", "float64", "bfloat16", "muon", "adamw8bit"],
)
def test_one_rank_alone(spec, fields):
    alone = spec(**fields)
    held_bytes = held(Learner(alone, Ranks(1, 0, torch.device("cpu"))))
    assert said(rank_memory(preset("tiny"), alone, PACK, packs=2)) == held_bytes


def test_adapters_alone_have_gradients_and_an_optimiser(spec):
    tuned = spec().model_copy(update={"lora": Lora(rank=2)})
    memory = rank_memory(preset("tiny"), tuned, PACK, packs=2)
    assert said(memory) == held(Learner(tuned, Ranks(1, 0, torch.device("cpu"))))
    assert memory.gradients < 0.1 * memory.parameters


@pytest.mark.parametrize("shard", [None, 2])
def test_the_first_of_four_ranks(spec, first_of_four, shard):
    shared = spec(workers={"count": 4}, parallel={"shard": shard}, optimizer={"kind": "adamw"})
    memory = rank_memory(preset("tiny"), shared, PACK, packs=1)
    assert said(memory) == held(Learner(shared, first_of_four))
    # One rank in `shard` is enough for a quarter, or half, of everything, rounded up.
    alone = rank_memory(preset("tiny"), spec(), PACK, packs=1)
    assert memory.parameters == pytest.approx(alone.parameters / (shard or 4), rel=0.01)


def test_gradients_of_several_packs_are_whole_until_ranks_sum_them(spec):
    shared = spec(workers={"count": 4})
    one, two = (rank_memory(preset("tiny"), shared, PACK, packs=packs) for packs in (1, 2))
    assert two.gradients - one.gradients == rank_memory(preset("tiny"), spec(), PACK, packs=1).parameters


def test_what_is_offloaded_is_not_on_the_device(spec):
    kept = rank_memory(preset("tiny"), spec(), PACK, packs=1)
    offloaded = rank_memory(preset("tiny"), spec(memory={"offload_weights": True}), PACK, packs=1)
    assert kept.device == sum(said(kept)) + kept.in_use + kept.activations
    assert offloaded.device == offloaded.in_use + offloaded.activations
    assert said(offloaded) == said(kept)


def test_inputs_of_blocks_that_wait_elsewhere_are_not_activations(spec):
    kept, offloaded = (
        rank_memory(preset("tiny"), spec(memory={"recompute": "full", "offload_activations": elsewhere}), PACK, packs=1)
        for elsewhere in (False, True)
    )
    # Four blocks of width 96 in fp32; the one at work has its input.
    assert kept.activations - offloaded.activations == 3 * 1000 * 96 * 4


@pytest.mark.parametrize("conditioning", ["shared_context", "official"])
def test_a_dry_runs_activations_are_what_a_step_keeps_for_its_backward_pass(spec, conditioning):
    run = settle(spec(model={"preset": "tiny", "conditioning": conditioning}, phase={"steps": 1, "bins_per_step": 1}))
    here = Run(run, Ranks(1, 0, torch.device("cpu")))
    phase, _, share = next(here.shares(0))
    weights = {tuple(sorted(weight.shape)) for weight in here.learner.model.parameters()}
    kept = {}

    def keep(tensor):
        # Weights, and views of them, are not activations.
        if tuple(sorted(tensor.shape)) not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = here.learner.loss(share.bins[0], phase, seed=0)
    assert loss.errors.requires_grad
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert dry_run(run).memory.activations == pytest.approx(measured, rel=0.15)


def test_activations_are_those_of_the_spec(spec):
    fields = {"memory": {"recompute": "selective"}, "workers": {"count": 2, "gpus": True}, "parallel": {"sequence": 2}}
    split = spec(precision="auto", **fields)
    memory = rank_memory(preset("tiny"), split, PACK, packs=1)
    assert memory.activations == activation_bytes(preset("tiny"), PACK, "selective", formats_of(split)) // 2
    assert (formats_of(split).product, formats_of(split).gathers) == (2, False)
    assert (formats_of(spec()).product, formats_of(spec()).gathers) == (4, True)
