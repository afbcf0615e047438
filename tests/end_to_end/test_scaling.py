"""Samplers that come and go with the work, and versions that change under it, on a real Ray Serve."""

import json
import shutil
import time
from pathlib import Path

import httpx
import openai
import pytest
from deaths import kill, replicas
from ray import serve

from rayramid.serve.app import APP, deploy
from rayramid.serve.releases import Releases, Version
from rayramid.serve.spec import Limits, SamplerOptions, ServeSpec
from rayramid.serve.store import Store

PATIENCE_S = 600


@pytest.fixture
def ended():
    """Serve ends with the test."""
    yield
    serve.shutdown()


def samplers():
    deployment = serve.status().applications[APP].deployments["Sampler"]
    return deployment.replica_states.get("RUNNING", 0)


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_samplers_come_with_work_and_go_with_it(ray_cluster, ended, model_folder, tmp_path):
    scaling = {"max": 2, "backlog_seconds": 0.5, "up_after_seconds": 0, "down_after_seconds": 2}
    sampler = SamplerOptions(num_cpus=0.3, threads=1, max_sessions=2, autoscaling=scaling)
    spec = ServeSpec(
        model=model_folder, store=str(tmp_path), port=0, keys=False, sampler=sampler, limits=Limits(queue=99)
    )
    url = deploy(spec)
    assert samplers() == 0
    assert httpx.get(f"{url}/ready").status_code == 200
    seen = {0}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        videos = [client.videos.create(prompt=f"video {i}", seconds="20", extra_body={"steps": 8}) for i in range(16)]
        store = Store(spec.store)

        def all_ended():
            seen.add(samplers())
            return not any(store.is_open(video.id) for video in videos)

        until(all_ended)
        assert {store.outcome(video.id).status for video in videos} == {"completed"}
        assert seen == {0, 1, 2}
        until(lambda: samplers() == 0)
        # And once more from nothing.
        assert client.videos.create_and_poll(prompt="later", poll_interval_ms=500).status == "completed"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_promotion_and_a_kill_lose_no_job_and_change_no_version(ray_cluster, ended, model_folder, tmp_path):
    second = shutil.copytree(model_folder, tmp_path / "second")
    card = Path(second, "rayramid.json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"negative_prompt": "a dog"}))
    sampler = SamplerOptions(threads=1, max_sessions=4, models=2)
    spec = ServeSpec(
        models={"clips": model_folder, "sprites": "rayramid://sprites"},
        store=str(tmp_path / "store"),
        port=0,
        keys=False,
        sampler=sampler,
    )
    old, new = Version.at(model_folder), Version.at(str(second))
    store = Store(spec.store)
    with openai.OpenAI(base_url=f"{deploy(spec)}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["clips", "sprites"]
        with pytest.raises(openai.NotFoundError, match="does not exist here"):
            client.videos.create(prompt="x", model="paper")
        running = client.videos.create(prompt="long", seconds="40", extra_body={"steps": 8, "seed": 1})
        until(lambda: store.units(running.id) >= 2)
        releases = Releases(spec.store)
        releases.promote("clips", new)
        # Gateways look every two seconds.
        until(lambda: client.videos.create(prompt="new", seconds="1").model_version == new.id)
        sprites = client.videos.create(prompt="a red circle", model="sprites", size="64x64", seconds="1")
        kill("Sampler")
        until(lambda: not any(True for _ in store.unfinished()))
        assert store.control(running.id).attempts >= 2
        assert {store.outcome(each).status for each in store.newest_first()} == {"completed"}
        made = [client.videos.retrieve(each.id).model_version for each in (running, sprites)]
        assert made == [old.id, Version.at("rayramid://sprites").id]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_two_gateways_one_dies_and_no_connection_is_refused(ray_cluster, ended, model_folder, tmp_path):
    spec = ServeSpec(
        model=model_folder, store=str(tmp_path), port=0, keys=False, gateways=2, sampler=SamplerOptions(threads=1)
    )
    url = deploy(spec)
    first, second = replicas("Gateway")
    first.kill()
    first.wait()
    # Until Serve has started another, and on.
    until(lambda: httpx.get(f"{url}/health").status_code == 200 and len(replicas("Gateway")) == 2)
    assert second in replicas("Gateway")
    answers = [httpx.get(f"{url}/health").status_code for _ in range(20)]
    assert answers == [200] * 20
