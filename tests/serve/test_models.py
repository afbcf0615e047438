"""Several models, adapters and versions on one endpoint, in the test's own process with real tiny weights."""

import asyncio
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load
from sameness import same_latents
from waiting import PATIENCE_S

from rayramid.models import storage
from rayramid.models.checkpoint import load_model
from rayramid.models.lora import save_adapter
from rayramid.models.text import load_text
from rayramid.serve import catalogue
from rayramid.serve.access import Access
from rayramid.serve.admission import Capacity
from rayramid.serve.broker import Broker
from rayramid.serve.catalogue import Catalogue
from rayramid.serve.encoders import Encoders
from rayramid.serve.endpoint import Endpoint
from rayramid.serve.gateway import create_app
from rayramid.serve.loading import load_worker
from rayramid.serve.new_videos import NewVideos
from rayramid.serve.reel import LATENT
from rayramid.serve.releases import Releases, Version, candidate
from rayramid.serve.spec import Limits, SamplerOptions
from rayramid.serve.workers import Workers

LIMITS = Limits()


class Served:
    """An endpoint; `disturb(attempt, progress)` may raise what a sampler that dies does."""

    def __init__(self, store, versions, most):
        self.store, self.releases, self.loads = store, Releases(store.url), []
        self.names = list(versions)
        for name, version in versions.items():
            self.releases.follow_spec(name, version)
        self.encoders = Encoders(1, 2**20, self._load_text)
        options = SamplerOptions(models=most, cache_gib=0.01)
        self.workers = Workers(store, Releases(store.url), most, partial(self._open, options, ThreadPoolExecutor(1)))
        self.broker = Broker(store, self._dispatch, workers=1, slots=2, queue_limit=8)
        self.disturb = lambda attempt, progress: None

    def _load_text(self, folder):
        self.loads.append("text")
        return load_text(storage.join(folder, "text"))

    def _open(self, options, thread, version):
        self.loads.append(version.id)
        embed = partial(self.encoders.embed, version.folder)
        return load_worker(version, self.store, embed, options, None, None, thread)

    async def _dispatch(self, job, attempt):
        async with aclosing(self.workers.run(job, attempt)) as told:
            async for each in told:
                if isinstance(each, Capacity):
                    self.broker.know(job.model_version, each)
                else:
                    self.disturb(attempt, each)
                    yield each

    async def create(self, status=200, **fields):
        response = await self.http.post("/v1/videos", json={"prompt": "a cat", "steps": 1, **fields})
        assert response.status_code == status, response.text
        return response.json()

    async def made(self, video):
        async with asyncio.timeout(PATIENCE_S):
            while (video := (await self.http.get(f"/v1/videos/{video['id']}")).json())["status"] not in (
                "completed",
                "failed",
            ):
                await asyncio.sleep(0.02)
        return video

    def latents(self, video):
        names = (self.store.latents(video["id"], unit) for unit in range(self.store.units(video["id"])))
        return torch.cat([load(storage.read_bytes(name))[LATENT] for name in names], dim=1)


@asynccontextmanager
async def serving(store, versions, most=1):
    served = Served(store, versions, most)
    await served.broker.recover()
    new = NewVideos(Catalogue(served.names, Releases(store.url)), store, served.broker, LIMITS)
    app = create_app(new, Endpoint(store, served.broker, LIMITS), Access(None, LIMITS.per_key))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as served.http:
        yield served


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """A release counts with the next request."""
    monkeypatch.setattr(catalogue, "REFRESH_S", 0.0)


@pytest.fixture
def second(model_folder, tmp_path):
    """Another version: the same weights, led away from something."""
    folder = shutil.copytree(model_folder, tmp_path / "second")
    rewrite_card(folder, negative_prompt="a dog")
    return str(folder)


def rewrite_card(folder, **fields):
    path = Path(folder, "rayramid.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def adapter(model_folder, tmp_path):
    layer, draws = "double_blocks.0.video.qkv", torch.Generator().manual_seed(1)
    rows, columns = load_model(model_folder).dit.state_dict()[f"{layer}.weight"].shape
    pair = {
        f"{layer}.lora_A.weight": torch.randn(2, columns, generator=draws),
        f"{layer}.lora_B.weight": torch.randn(rows, 2, generator=draws),
    }
    save_adapter(str(tmp_path / "adapter"), pair, {"peft_type": "LORA", "r": 2, "lora_alpha": 2.0})
    return str(tmp_path / "adapter")


def test_models_and_an_adapter_are_asked_for_by_name(store, model_folder, second, adapter):
    versions = {
        "plain": Version.at(model_folder),
        "drawn": Version.at(model_folder, adapter),
        "other": Version.at(second),
    }

    async def scenario():
        async with serving(store, versions, most=2) as served:
            listed = (await served.http.get("/v1/models")).json()["data"]
            assert [(each["id"], each["version"]) for each in listed] == [
                (name, version.id) for name, version in versions.items()
            ]
            one = (await served.http.get("/v1/models/drawn")).json()
            assert one == listed[1]
            asked = [await served.create(seed=1, **model) for model in ({}, {"model": "drawn"}, {"model": "other"})]
            videos = [await served.made(each) for each in asked]
            unknown = [
                await served.http.get("/v1/models/nothing"),
                await served.http.post("/v1/videos", json={"prompt": "a cat", "model": "nothing"}),
            ]
            return videos, [served.latents(each) for each in videos], unknown, served.loads

    videos, latents, unknown, loads = asyncio.run(scenario())
    assert [each["status"] for each in videos] == ["completed"] * 3
    assert [(each["model"], each["model_version"]) for each in videos] == [
        (name, version.id) for name, version in versions.items()
    ]
    assert videos[2]["negative_prompt"] == "a dog"
    assert not same_latents(latents[0], latents[1])
    # Each was loaded once, and their text encoders, which are the same, once for all.
    assert sorted(loads) == sorted(["text", *(version.id for version in versions.values())])
    for response in unknown:
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["param"], error["code"]) == (
            404,
            "invalid_request_error",
            "model",
            "model_not_found",
        )
        assert error["message"] == "The model 'nothing' does not exist here; there are plain, drawn, other."


def test_a_job_ends_with_the_version_that_it_began_with_whatever_is_promoted_and_whoever_dies(
    store, model_folder, second
):
    old, new = Version.at(model_folder), Version.at(second)

    async def scenario():
        async with serving(store, {"clips": old}) as served:

            def die(attempt, progress):
                if attempt == 1 and progress.units_done >= 2:
                    served.disturb = lambda attempt, progress: None
                    served.releases.promote("clips", new)
                    raise RuntimeError("the sampler was killed")

            served.disturb = die
            disturbed = await served.made(await served.create(seed=1, seconds=6))
            later = await served.made(await served.create(seed=1, seconds=6))
            # Nothing but the version differs when the first one is back.
            served.releases.roll_back("clips")
            again = await served.made(await served.create(seed=1, seconds=6))
            assert store.control(disturbed["id"]).attempts == 2
            same = same_latents(served.latents(disturbed), served.latents(again))
            return disturbed, later, again, same, [load for load in served.loads if load != "text"]

    disturbed, later, again, same, loads = asyncio.run(scenario())
    assert [each["status"] for each in (disturbed, later, again)] == ["completed"] * 3
    assert [each["model_version"] for each in (disturbed, later, again)] == [old.id, new.id, old.id]
    assert same
    assert loads == [old.id, new.id, old.id]


def test_a_canary_gets_jobs_and_what_it_made_is_taken_further_by_it_after_its_end(store, model_folder, second):
    async def scenario():
        async with serving(store, {"clips": Version.at(model_folder)}) as served:
            trial = candidate(second, served.releases.newest("clips").stable)
            served.releases.canary("clips", trial, 1.0)
            tried = await served.made(await served.create())
            served.releases.roll_back("clips")
            body = {"video": {"id": tried["id"]}, "seconds": 1}
            longer = (await served.http.post("/v1/videos/extensions", json=body)).json()
            remix = (await served.http.post(f"/v1/videos/{tried['id']}/remix", json={"prompt": "a cow"})).json()
            ended = [await served.made(each) for each in (longer, remix)]
            ended.append(await served.made(await served.create()))
            # The other version is loaded now, and where the trial was is something else.
            rewrite_card(second, negative_prompt="a horse")
            served.releases.promote("clips", trial)
            gone = await served.made(await served.create())
            return trial, tried, ended, gone

    trial, tried, ended, gone = asyncio.run(scenario())
    assert tried["model_version"] == trial.id
    assert [each["status"] for each in ended] == ["completed"] * 3
    assert [each["model_version"] == trial.id for each in ended] == [True, True, False]
    assert (gone["status"], gone["error"]["code"]) == ("failed", "model_changed")


def test_a_candidate_is_a_whole_model_or_an_adapter_over_the_base_that_is_stable(model_folder, adapter, tmp_path):
    stable = Version.at(model_folder)
    over = candidate(adapter, stable)
    assert (over.folder, over.adapter) == (model_folder, adapter)
    assert over.id != stable.id
    bare = shutil.copytree(model_folder, tmp_path / "bare")
    rewrite_card(bare, files={"dit/model.safetensors": 1})
    for folder, message in ((bare, "holds a DiT without vae/"), (tmp_path / "none", "not a rayramid model")):
        with pytest.raises(Exception, match=message):
            candidate(str(folder), stable)
