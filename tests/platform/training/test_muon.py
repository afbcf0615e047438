"""Muon against PyTorch's, for kernels, and for shards against whole matrices."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rayramid.platform.training.muon import Muon, orthogonal

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from processes import in_processes

# Matrices of three shapes and a kernel; on two ranks the second has fewer rows, or none.
SHAPES = [(5, 3), (5, 3), (5, 3), (4, 8), (1, 6), (3, 2, 2, 2)]


def model(dtype) -> nn.ParameterList:
    draws = torch.Generator().manual_seed(0)
    return nn.ParameterList(torch.randn(shape, generator=draws, dtype=torch.float64).to(dtype) for shape in SHAPES)


def gradients(step, dtype):
    draws = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=draws, dtype=torch.float64).to(dtype) for shape in SHAPES]


def whole(dtype):
    """The weights after three steps."""
    net = model(dtype)
    optimizer = Muon(net.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(3):
        for weight, gradient in zip(net, gradients(step, dtype), strict=True):
            weight.grad = gradient
        optimizer.step()
    return [weight.detach() for weight in net]


def in_shards(rank, shape):
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard")[-len(shape) :])
    for dtype in (torch.float64, torch.float32):
        net = model(dtype)
        fully_shard(net, mesh=mesh)
        optimizer = Muon(net.parameters(), lr=0.1, weight_decay=0.1)
        for step in range(3):
            for weight, gradient in zip(net, gradients(step, dtype), strict=True):
                weight.grad = distribute_tensor(gradient, mesh, weight.placements)
            optimizer.step()
        for weight, expected in zip(net, whole(dtype), strict=True):
            assert isinstance(weight, DTensor)
            # Products of fewer matrices at a time may be added up in another order.
            tolerance = 1e-12 if dtype == torch.float64 else 1e-4
            torch.testing.assert_close(weight.full_tensor(), expected, rtol=tolerance, atol=tolerance)


def test_shards_and_copies_of_shards_move_as_whole_matrices_do(tmp_path):
    for shape in ((2,), (2, 1)):
        meeting = tmp_path / str(len(shape))
        meeting.mkdir()
        in_processes(in_shards, 2, meeting, shape)


def test_matrices_move_as_under_pytorchs():
    mine, theirs = nn.Parameter(torch.eye(4, 8)), nn.Parameter(torch.eye(4, 8))
    optimizers = [Muon([mine], lr=0.1, weight_decay=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1)]
    for step in range(3):
        gradient = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
        for weight, optimizer in zip((mine, theirs), optimizers, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    # PyTorch's iterates in bfloat16.
    torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2)
    assert (mine - torch.eye(4, 8)).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_singular_values_come_near_to_one(shape):
    matrix = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.6 < values.min() < values.max() < 1.3
