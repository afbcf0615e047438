"""How a process computes on a CPU."""

import torch

from rayramid.models.cpu import compute_on_cpu


def test_denormal_numbers_are_zero_and_the_threads_are_those_asked_for():
    threads = torch.get_num_threads()
    tiny = torch.full((64,), torch.finfo(torch.float32).tiny)
    assert (tiny / 2).all()
    try:
        compute_on_cpu(1)
        assert torch.get_num_threads() == 1
        assert not (tiny / 2).any()
        compute_on_cpu()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
