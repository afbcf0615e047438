"""Where a test runs: on the CPU always, on CUDA devices under the marker `gpu`, skipped where there are too few."""

from typing import Any

import pytest
import torch

# What a CUDA device computes in fp32, against the CPU: other orders of summation, no TF32.
NEAR = {"rtol": 2e-3, "atol": 2e-3}


def on_cuda(devices: int = 1) -> Any:
    """The parameter `cuda` of a test that needs so many devices."""
    there = torch.cuda.device_count()
    short = pytest.mark.skipif(there < devices, reason=f"needs {devices} CUDA device(s), this machine has {there}")
    return pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.timeout(1200), short])
