"""AdamW with moments of 8 bits: near to AdamW, the same in shards, the same after a restart on any number of ranks."""

import sys
from pathlib import Path

import pytest
import torch
import torchao
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

from rayramid.models.errors import UserError
from rayramid.platform.training import optimizer as optimizers
from rayramid.platform.training.adam8bit import AdamW8bit, dequantised, quantised
from rayramid.platform.training.optimizer import build_optimizers, check_optimizer
from rayramid.platform.training.spec.optimizer import Optimizer

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from processes import in_processes

# Rows of less than a block, of several, and of a whole number; on two ranks the second has fewer rows, or none.
SHAPES = [(5, 30), (3, 700), (1, 256)]
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def model() -> nn.ParameterList:
    draws = torch.Generator().manual_seed(0)
    return nn.ParameterList(torch.randn(shape, generator=draws) for shape in SHAPES)


def gradients(step):
    draws = torch.Generator().manual_seed(step)
    # Some coordinates of large gradients, some of small ones.
    return [torch.randn(shape, generator=draws) * torch.logspace(-3, 0, shape[1]) for shape in SHAPES]


def train(net, optimizer, steps):
    for step in steps:
        for weight, gradient in zip(net, gradients(step), strict=True):
            mesh = getattr(weight, "device_mesh", None)
            weight.grad = gradient if mesh is None else distribute_tensor(gradient, mesh, weight.placements)
        optimizer.step()


def whole(steps=6):
    net = model()
    train(net, AdamW8bit(net.parameters(), lr=0.1, weight_decay=0.1), range(steps))
    return [weight.detach() for weight in net]


def test_it_moves_as_torchaos_does_and_nearly_as_exact_adamw():
    draws = torch.Generator().manual_seed(1)
    start, pulls = torch.randn(16, 512, generator=draws), torch.randn(6, 16, 512, generator=draws)
    ends = []
    for kind in (AdamW8bit, torchao.optim.AdamW8bit, torch.optim.AdamW):
        weight = nn.Parameter(start.clone())
        optimizer = kind([weight], lr=0.1, betas=(0.9, 0.95), weight_decay=0.1)
        # torchao compiles its step, which takes a minute here.
        with torch.compiler.set_stance("force_eager"):
            for pull in pulls:
                weight.grad = pull.clone()
                optimizer.step()
        ends.append(weight.detach())
    mine, theirs, exact = ends
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert 0 < (mine - exact).norm() < 0.05 * (exact - start).norm()


def test_a_moment_takes_a_byte_per_weight_and_a_scale_per_block():
    moment = torch.randn(3, 700, generator=torch.Generator().manual_seed(0))
    codes, scale = quantised(moment, signed=True)
    assert (codes.dtype, codes.shape, scale.shape) == (torch.uint8, (3, 700), (3, 3))
    assert (dequantised(codes, scale, signed=True) - moment).abs().max() < 0.02 * moment.abs().max()
    # A block of large values leaves its neighbours exact.
    moment[0, 256] = 1e6
    codes, scale = quantised(moment, signed=True)
    back = dequantised(codes, scale, signed=True)
    assert (back - moment)[0, :256].abs().max() < 0.1


def on_two_ranks(rank, saved):
    """Shards move as whole matrices; a state from one rank goes on here."""
    mesh = init_device_mesh("cpu", (2,))
    for first, state in ((0, None), (3, torch.load(saved))):
        net = nn.ParameterList(weight.detach().clone() for weight in (model() if state is None else state["net"]))
        fully_shard(net, mesh=mesh)
        optimizer = AdamW8bit(net.parameters(), lr=0.1, weight_decay=0.1)
        if state is not None:
            here = get_optimizer_state_dict(net, optimizer, options=FLAT)
            for name, value in here.items():
                if isinstance(value, torch.Tensor) and value.ndim:
                    here[name] = distribute_tensor(state["optimizer"][name], mesh, value.placements)
                elif name.endswith(".step"):
                    value.copy_(state["optimizer"][name])
            set_optimizer_state_dict(net, optimizer, here, options=FLAT)
            for group in optimizer.param_groups:
                group["lr"] = 0.1
        train(net, optimizer, range(first, 6))
        for weight, expected in zip(net, whole(), strict=True):
            assert torch.equal(weight.full_tensor(), expected)


def test_shards_move_as_whole_matrices_do_and_go_on_from_them_bit_for_bit(tmp_path):
    net = model()
    optimizer = AdamW8bit(net.parameters(), lr=0.1, weight_decay=0.1)
    train(net, optimizer, range(3))
    state = get_optimizer_state_dict(net, optimizer, options=FLAT)
    torch.save({"net": [w.detach() for w in net], "optimizer": state}, tmp_path / "state.pt")
    in_processes(on_two_ranks, 2, tmp_path, str(tmp_path / "state.pt"))


def test_matrices_have_it_and_vectors_have_adamw():
    net = nn.Linear(4, 4)
    adamw, small = build_optimizers(net, [], Optimizer(kind="adamw8bit"))
    assert isinstance(small, AdamW8bit)
    assert [p.ndim for g in adamw.param_groups for p in g["params"]] == [1]
    assert [p.ndim for g in small.param_groups for p in g["params"]] == [2]


def test_without_torchao_it_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"torchao is not installed; pip install 'rayramid\[adam8bit\]'"):
        check_optimizer(Optimizer(kind="adamw8bit"))
