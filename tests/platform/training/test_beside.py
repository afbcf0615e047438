"""Videos made in Ray tasks beside a training: they wait for nobody, nobody for them, and may die."""

import contextlib
import os
import signal
import time

import psutil
import pytest
import ray
import torch

from rayramid.platform.training.beside import VideoTasks
from rayramid.platform.training.loop import run
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle

PATIENCE = 120


@pytest.fixture
def trained(spec):
    """A run of two steps with videos as asked for, and `first_steps` denoising steps of their first unit."""

    def train(first_steps=1, **videos):
        wanted = settle(
            spec(
                phase={"steps": 2},
                videos={"prompts": ["a picture"], "seconds": 0.01, "every": 2} | videos,
                sampling={"first_steps": first_steps, "later_steps": 1, "guidance": 1.0, "video_guidance": 1.0},
            )
        )
        run(wanted, Ranks(1, 0, torch.device("cpu")), lambda step, record: None)
        return wanted

    return train


@ray.remote(num_cpus=2)
class AllCPUs:
    """A training that occupies the whole cluster."""

    def there(self):
        return True


@pytest.fixture
def busy(ray_cluster):
    """All CPUs of the cluster are taken."""
    holder = AllCPUs.remote()
    ray.get(holder.there.remote())
    yield holder
    ray.kill(holder)


def until(tasks, step):
    """Tends until something comes."""
    deadline = time.monotonic() + PATIENCE
    while not (found := tasks.tend(step)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_videos_come_while_the_workers_hold_every_cpu_and_once(trained, busy):
    wanted = trained()
    with VideoTasks(wanted) as tasks:
        assert tasks.tend(1) == []
        assert tasks.made == 0
        (late,) = until(tasks, 2)
        assert late.step == tasks.made == 2
        assert late.record["videos"]["steadiness"] == 1.0
        assert list(late.videos) == ["videos/prompt-0"]
        # Not due again; and the last step has its videos already.
        assert tasks.tend(3) == []
        assert [late.step for late in tasks.finish()] == [2]
    with VideoTasks(wanted) as restarted:
        # A new driver can't know whether they were written.
        assert restarted.tend(3) == [late]


@pytest.mark.slow
def test_a_task_that_is_killed_is_reported(trained, ray_cluster, caplog):
    wanted = trained(first_steps=10_000)
    with VideoTasks(wanted) as tasks:
        tasks.tend(2)
        os.kill(sampling_process(ray_cluster), signal.SIGKILL)
        (late,) = until(tasks, 2)
    assert late.step == 2
    assert "died" in late.record["videos_failed"]
    assert "no videos of step 2" in caplog.text


def test_what_finds_no_place_is_given_up(trained, busy, caplog):
    wanted = trained(cpus=1, patience=0.5)
    with VideoTasks(wanted) as tasks:
        assert tasks.tend(2) == []
        (late,) = tasks.finish()
    assert late.record == {"videos_failed": "not done 0.5 s after the last step (videos.patience)"}


@pytest.mark.slow
def test_a_mistake_is_reported_in_one_line(spec, ray_cluster):
    untrained = settle(spec(videos={"prompts": ["a picture"]}))
    with VideoTasks(untrained) as tasks:
        (late,) = tasks.finish()
    assert late.step == untrained.steps
    assert late.record == {"videos_failed": f"UserError: {untrained.output}/checkpoints: no checkpoint yet"}


def sampling_process(address):
    """The process of the task, when it has begun."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[:1] == ["ray::_sample"] and belongs(process, address):
                    return process.pid
        time.sleep(0.1)
    raise AssertionError("the task did not begin")


def belongs(process, address):
    """Whether a worker is of the cluster at `address`."""
    return any(address in part for part in process.parent().cmdline())
