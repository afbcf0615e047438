"""Fixtures shared by all tests: one Ray cluster per session."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """A local Ray of two CPUs with its own temp dir and ports; yields its address."""
    import ray

    # AF_UNIX paths are limited to 107 bytes, so the temp dir must be short.
    temp = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    os.environ.pop("RAY_ADDRESS", None)
    context = ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 1024**2,
        include_dashboard=False,
        _temp_dir=str(temp),
        log_to_driver=True,
    )
    address = context.address_info["gcs_address"]
    # With several Ray instances on one host, Ray Train finds its own only by this variable.
    os.environ["RAY_ADDRESS"] = address
    yield address
    ray.shutdown()
    os.environ.pop("RAY_ADDRESS", None)
    shutil.rmtree(temp, ignore_errors=True)
