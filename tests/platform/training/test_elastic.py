"""Nodes that go and come while a run trains: real nodes, killed and drained, under the real command."""

import signal
import sys
import time
from itertools import groupby
from pathlib import Path

import pytest
import torch
from ray_nodes import ENVIRONMENT, ray_nodes, wait_until

from rayramid.models import storage
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.loop import run
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle

sys.path.insert(0, str(Path(__file__).parent))
from commands import command, last_step, lines

ALONE = Ranks(1, 0, torch.device("cpu"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def saved(output):
    return checkpoints.committed(storage.join(str(output), "checkpoints"))


@pytest.fixture
def long_spec(spec, tmp_path):
    def build(name, steps, every, **workers):
        return spec(
            output=str(tmp_path / name),
            precision="float64",
            phase={"steps": steps, "bins_per_step": 3},
            checkpoints={"every": every, "keep_last": 1000},
            validation={"every": steps},
            workers={"count": [1, 2], "grow_after": 5} | workers,
        )

    return build


def same_run(found, expected):
    """The same visits with the same noise in every step, and losses that differ by the order of sums alone."""
    found, expected = lines(found), lines(expected)
    assert [r["step"] for r in found] == [r["step"] for r in expected]
    assert [r["visits"] for r in found] == [r["visits"] for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-9)


def undisturbed_until(step, spec):
    """Trains `spec` in this process and stops at `step`."""
    asked = iter(range(1, step + 1))
    torch.set_num_threads(1)
    run(settle(spec), ALONE, lambda step, record: None, lambda: "stop" if next(asked) == step else "")
    return spec.output


def test_a_run_goes_on_with_one_node_when_the_other_dies_and_grows_when_one_joins(long_spec, tmp_path):
    elastic = long_spec("elastic", steps=20_000, every=25)
    with ray_nodes() as nodes:
        second = nodes.add()
        with command(elastic, tmp_path, "--address", nodes.address, environment=ENVIRONMENT) as driver:
            wait_until(lambda: saved(elastic.output))
            nodes.kill(second)
            wait_until(lambda: saved(elastic.output)[-1].workers == 1)
            nodes.add()
            wait_until(lambda: saved(elastic.output)[-1].workers == 2)
            driver.send_signal(signal.SIGINT)
            assert driver.wait(600) == 130
    workers = [(c.step, c.workers) for c in saved(elastic.output)]
    assert [count for count, _ in groupby(count for _, count in workers)] == [2, 1, 2]
    last_alone = max(step for step, count in workers if count == 1)
    told = (tmp_path / "err.txt").read_text()
    assert "started again, with 1 workers" in told
    assert "started again, with 2 workers" in told
    assert f"step {workers[-1][0]} is saved" in told
    assert last_step(elastic.output) == workers[-1][0] > last_alone
    same_run(elastic.output, undisturbed_until(workers[-1][0], long_spec("undisturbed", steps=20_000, every=20_000)))


def test_a_node_that_announces_its_end_leaves_a_checkpoint_of_that_step(long_spec, tmp_path):
    # No checkpoint would be due for a long time.
    elastic = long_spec("drained", steps=20_000, every=20_000)
    with ray_nodes() as nodes:
        second = nodes.add()
        with command(elastic, tmp_path, "--address", nodes.address, environment=ENVIRONMENT) as driver:
            wait_until(lambda: last_step(elastic.output) >= 5)
            # The command that announces it returns after the run has heard of it.
            before = last_step(elastic.output)
            nodes.drain(second, seconds=30)
            wait_until(lambda: saved(elastic.output))
            (in_time,) = saved(elastic.output)
            assert (in_time.step > before, in_time.workers) == (True, 2)
            time.sleep(30)
            nodes.kill(second)
            wait_until(lambda: "started again, with 1 workers" in (tmp_path / "err.txt").read_text())
            driver.terminate()
            assert driver.wait(600) == 143
    told = (tmp_path / "err.txt").read_text()
    assert "1 nodes are about to go: saving" in told
    final = saved(elastic.output)[-1]
    assert (final.workers, final.step > in_time.step) == (1, True)
    same_run(elastic.output, undisturbed_until(final.step, long_spec("undisturbed", steps=20_000, every=20_000)))
