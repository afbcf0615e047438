"""How a process computes on a CPU."""

import torch


def compute_on_cpu(threads: int | None = None) -> None:
    """With so many threads (torch's choice when None), and denormal numbers taken for zero.

    With denormals the tanh of a large number, which GELU takes, is four to seven times as slow: a quarter of a trained
    model's step. Say it before the process computes anything: threads that run already keep their denormals.
    """
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)
