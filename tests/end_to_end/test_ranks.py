"""A sampler of two processes on Ray Serve, either of which is killed while it makes a video: no job is lost."""

import time

import openai
import psutil
import pytest
import torch
from deaths import kill, ranks
from ray import serve
from safetensors.torch import load
from sameness import same_latents

from rayramid.models import storage
from rayramid.serve.app import deploy
from rayramid.serve.reel import LATENT
from rayramid.serve.spec import SamplerOptions, ServeSpec
from rayramid.serve.store import Store

PATIENCE_S = 300


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_video_survives_the_death_of_a_rank_and_no_rank_survives_its_sampler(ray_cluster, model_folder, tmp_path):
    options = SamplerOptions(threads=1, ranks=2, weights="int8", offload=("blocks", "vae"))
    spec = ServeSpec(model=model_folder, store=str(tmp_path / "store"), port=0, keys=False, sampler=options)
    store = Store(spec.store)
    try:
        with openai.OpenAI(base_url=f"{deploy(spec)}/v1", api_key="none") as client:
            made = [video_of(client, store, disturb) for disturb in (lambda: None, kill_a_rank, kill_the_sampler)]
    finally:
        before = ranks()
        serve.shutdown()
    gone(before)
    assert [store.control(video).attempts for video in made] == [1, 2, 2]
    undisturbed, *disturbed = [latents(store, video) for video in made]
    assert [same_latents(each, undisturbed) for each in disturbed] == [True, True]


def video_of(client, store, disturb):
    """The id of a video, disturbed when some of it is made and more is in the making."""
    video = client.videos.create(prompt="long", seconds="20", extra_body={"steps": 8, "seed": 1})
    until(lambda: store.units(video.id) >= 3)
    assert store.is_open(video.id)
    disturb()
    until(lambda: not store.is_open(video.id))
    outcome = store.outcome(video.id)
    assert (outcome.status, outcome.error) == ("completed", None)
    return video.id


def kill_a_rank():
    (rank,) = ranks()
    sampler = rank.parent()
    rank.kill()
    gone([rank, sampler])


def kill_the_sampler():
    before = ranks()
    assert len(before) == 1
    kill("Sampler")
    gone(before)


def latents(store, video):
    names = (store.latents(video, unit) for unit in range(store.units(video)))
    return torch.cat([load(storage.read_bytes(name))[LATENT] for name in names], dim=1)


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert alive == []
