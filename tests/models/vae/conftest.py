import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    # Small matrices: threads that wait for each other cost more than they give.
    torch.set_num_threads(1)
