"""Remixes and extensions of finished videos."""

import asyncio
import base64
import io

import numpy as np
import pytest
from PIL import Image
from sameness import frame_differences, same_latents, same_pictures

ROUTES = {"remix": "/v1/videos/{}/remix", "extend": "/v1/videos/extensions"}


async def extended(endpoint, video, **fields):
    body = {"video": {"id": video["id"]}, **fields}
    response = await endpoint.http.post("/v1/videos/extensions", json=body)
    assert response.status_code == 200, response.text
    made = await endpoint.ended(response.json()["id"])
    assert made["status"] == "completed", made
    return made


async def same(endpoint, frames_of, one, other):
    """The frames of two videos, which are the same."""
    assert same_latents(endpoint.latents(one["id"]), endpoint.latents(other["id"]))
    one_THWC, other_THWC = [frames_of(await endpoint.content(each["id"])) for each in (one, other)]
    assert same_pictures(one_THWC, other_THWC)
    return one_THWC, other_THWC


@pytest.mark.parametrize(("seconds", "more"), [(2.125, 2), (1.5, 1.5), (1.5, 0.5), (0.125, 3)])
def test_n_seconds_and_then_m_equal_n_plus_m(endpoint, frames_of, seconds, more):
    # 1.5 s are 12 frames of 17 that were made: the extension shows the other 5 first, or has enough with them.
    async def scenario(endpoint):
        short = await endpoint.made(seed=4, seconds=seconds)
        longer = await extended(endpoint, short, seconds=more)
        whole = await endpoint.made(seed=4, seconds=seconds + more)
        live = await endpoint.http.get(f"/v1/videos/{longer['id']}/content?stream=1")
        return short, longer, await same(endpoint, frames_of, longer, whole), live.content

    short, longer, (longer_THWC, whole_THWC), live = endpoint(scenario)
    np.testing.assert_array_equal(frames_of(live), longer_THWC)
    assert (longer["extended_from_video_id"], longer["seed"]) == (short["id"], 4)
    assert float(longer["seconds"]) == seconds + more
    assert len(whole_THWC) == round(8 * (seconds + more))


def test_an_extension_shows_its_own_prompt_and_can_be_extended_after_its_source_is_gone(endpoint, frames_of):
    async def scenario(endpoint):
        short = await endpoint.made(seed=4, seconds=2.125, prompt_schedule=[{"from_second": 1, "prompt": "a dog"}])
        longer = await extended(endpoint, short, seconds=2, prompt="a cow")
        assert (await endpoint.http.delete(f"/v1/videos/{short['id']}")).status_code == 200
        longest = await extended(endpoint, longer, seconds=2)
        schedule = [(1, "a dog"), (2.125, "a cow")]
        at_once = await endpoint.made(
            seed=4,
            seconds=6.125,
            prompt_schedule=[{"from_second": second, "prompt": prompt} for second, prompt in schedule],
        )
        await same(endpoint, frames_of, longest, at_once)
        return longest

    longest = endpoint(scenario)
    assert [each["prompt"] for each in longest["prompt_schedule"]] == ["a dog", "a cow"]


def test_an_extension_goes_on_after_its_worker_died(endpoint, frames_of):
    async def interrupted(endpoint):
        short = await endpoint.made(seed=4, seconds=1.5)
        endpoint.worker.held_at = 5
        body = {"video": {"id": short["id"]}, "seconds": 6}
        longer = (await endpoint.http.post("/v1/videos/extensions", json=body)).json()
        await endpoint.units(longer["id"], 5)
        return longer["id"]

    async def continued(endpoint):
        longer = await endpoint.ended(video_id)
        assert longer["status"] == "completed"
        await same(endpoint, frames_of, longer, await endpoint.made(seed=4, seconds=7.5))

    video_id = endpoint(interrupted)
    endpoint(continued)


def test_a_video_that_began_with_a_picture_is_extended_and_remixed(endpoint, frames_of):
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 40, 40)).save(data, "PNG")
    picture = {"image_url": f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"}

    async def scenario(endpoint):
        short = await endpoint.made(seed=4, seconds=1, input_reference=picture)
        longer = await extended(endpoint, short, seconds=1)
        whole = await endpoint.made(seed=4, seconds=2, input_reference=picture)
        remix = (await endpoint.http.post(f"/v1/videos/{longer['id']}/remix", json={"prompt": "a dog"})).json()
        await endpoint.ended(remix["id"])
        again = (await endpoint.http.post(f"/v1/videos/{short['id']}/remix", json={"prompt": "a dog"})).json()
        await endpoint.ended(again["id"])
        _, whole_THWC = await same(endpoint, frames_of, longer, whole)
        return whole_THWC, frames_of(await endpoint.content(again["id"]))

    whole_THWC, remix_THWC = endpoint(scenario)
    np.testing.assert_array_equal(remix_THWC[0], whole_THWC[0])
    assert frame_differences(remix_THWC[1:], whole_THWC[1 : len(remix_THWC)]).min() > 2


def test_a_remix_is_the_same_but_for_the_prompt(endpoint, frames_of):
    async def scenario(endpoint):
        source = await endpoint.made(seed=4, size="80x64", steps=2, guidance_scale=2, negative_prompt="dull")
        response = await endpoint.http.post(f"/v1/videos/{source['id']}/remix", files={"prompt": (None, "a dog")})
        remix = await endpoint.ended(response.json()["id"])
        asked = await endpoint.made(
            prompt="a dog", seed=4, size="80x64", steps=2, guidance_scale=2, negative_prompt="dull"
        )
        remix_THWC, _ = await same(endpoint, frames_of, remix, asked)
        return source, remix, frames_of(await endpoint.content(source["id"])), remix_THWC

    source, remix, source_THWC, remix_THWC = endpoint(scenario)
    changed = {key for key in source if source[key] != remix[key]}
    assert changed - {"created_at", "completed_at"} == {"id", "prompt", "remixed_from_video_id"}
    assert (remix["prompt"], remix["remixed_from_video_id"]) == ("a dog", source["id"])
    assert frame_differences(remix_THWC, source_THWC).min() > 2


@pytest.mark.parametrize("way", ["remix", "extend"])
def test_only_completed_videos_are_taken_further(endpoint, way):
    async def scenario(endpoint):
        waiting = await endpoint.create()
        answers = []
        for video_id in (waiting["id"], "video_0", f"video_{0:028x}"):
            fields = {"prompt": "x"} if way == "remix" else {"video": {"id": video_id}, "seconds": 1}
            answers.append(await endpoint.http.post(ROUTES[way].format(video_id), json=fields))
        return answers

    answers = endpoint(scenario, generating=False)
    assert [(each.status_code, each.json()["error"]["code"]) for each in answers] == [
        (400, "video_not_completed"),
        (404, "video_not_found"),
        (404, "video_not_found"),
    ]
    assert {each.json()["error"]["param"] for each in answers} == {"video_id" if way == "remix" else "video"}


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"seconds": 31}, "seconds", "more than the 30"),
        ({}, "seconds", "Field required"),
        ({"seconds": 2, "prompt_schedule": [{"from_second": 1, "prompt": "x"}]}, "prompt_schedule", "another prompt"),
        ({"seconds": 2, "size": "64x64"}, "size", "Unknown parameter"),
    ],
)
def test_a_wrong_extension_is_refused_and_leaves_nothing(endpoint, tmp_path, fields, param, says):
    async def scenario(endpoint):
        source = await endpoint.made(seconds=2)
        response = await endpoint.http.post("/v1/videos/extensions", json={"video": {"id": source["id"]}, **fields})
        return response.status_code, response.json()["error"]

    status, error = endpoint(scenario)
    assert (status, error["param"]) == (400, param)
    assert says in error["message"]
    assert len(list((tmp_path / "store" / "videos").iterdir())) == 1


def test_what_can_not_be_done_says_what_can(endpoint):
    async def scenario(endpoint):
        return [
            await endpoint.http.post("/v1/videos/edits", json={"prompt": "x", "video": {"id": "y"}}),
            await endpoint.http.post("/v1/videos/characters", files={"name": (None, "x"), "video": ("v", b"x")}),
            await endpoint.http.post(
                "/v1/videos/extensions",
                files={"prompt": (None, "x"), "seconds": (None, "1"), "video": ("video.mp4", b"1234")},
            ),
        ]

    answers = endpoint(scenario, generating=False)
    assert [(each.status_code, each.json()["error"]["code"]) for each in answers] == [(400, "not_supported")] * 3
    assert ["extend" in answers[0].text, "prompt" in answers[1].text, "video[id]" in answers[2].text] == [True] * 3


def test_a_repeated_request_with_the_same_key_gets_the_same_video(endpoint):
    async def scenario(endpoint):
        async def post(key, **fields):
            headers = {"Idempotency-Key": key} if key else {}
            return await endpoint.http.post("/v1/videos", json={"prompt": "a cat", **fields}, headers=headers)

        answers = [await post("one"), await post("one"), await post("two"), await post(None)]
        concurrent = await asyncio.gather(*(post("three") for _ in range(5)))
        other = await post("one", seed=3)
        elsewhere = await endpoint.http.post(
            "/v1/videos", json={"prompt": "a cat"}, headers={"Idempotency-Key": "one", "Authorization": "Bearer x"}
        )
        await endpoint.http.delete(f"/v1/videos/{answers[0].json()['id']}")
        return answers, concurrent, other, elsewhere, await post("one"), endpoint.store.newest_first()

    answers, concurrent, other, elsewhere, renewed, ids = endpoint(scenario, generating=False, slots=10)
    first, again, second, unkeyed = (each.json()["id"] for each in answers)
    assert first == again
    assert len({first, second, unkeyed, elsewhere.json()["id"], renewed.json()["id"]}) == 5
    assert len({each.json()["id"] for each in concurrent}) == 1
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert len(ids) == 5


def test_a_key_whose_request_was_refused_can_be_used_again(endpoint):
    async def scenario(endpoint):
        for _ in range(3):
            await endpoint.create()
        headers = {"Idempotency-Key": "one"}
        refused = await endpoint.http.post("/v1/videos", json={"prompt": "a cat"}, headers=headers)
        await endpoint.http.delete(f"/v1/videos/{endpoint.store.newest_first()[0]}")
        return refused, await endpoint.http.post("/v1/videos", json={"prompt": "a cat"}, headers=headers)

    refused, accepted = endpoint(scenario, generating=False, slots=1)
    assert (refused.status_code, accepted.status_code) == (429, 200)
