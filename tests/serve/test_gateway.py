"""The HTTP API in the test's own process: gateway, broker, worker and a tiny seeded model, no Ray."""

import asyncio
import base64
import io
import math

import numpy as np
import pytest
from PIL import Image
from sameness import frame_differences, same_latents, same_pictures
from waiting import until

from rayramid.models.media.read import probe, read_frames
from rayramid.serve.watching import live_segments


def decoded(data, tmp_path):
    path = tmp_path / "downloaded.mp4"
    path.write_bytes(data)
    return probe(path), np.concatenate(list(read_frames(path)))


def picture(width=90, height=50):
    data = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), (200, 40, 40), np.uint8)).save(data, "PNG")
    return data.getvalue()


DATA_URL = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


def test_a_video_is_made_reported_downloaded_and_deleted(endpoint, tmp_path):
    async def scenario(endpoint):
        created = await endpoint.create(size="80x64", seconds="1.5", seed=7, steps=1, guidance_scale=2)
        assert created["status"] in ("queued", "in_progress")
        video = await endpoint.ended(created["id"])
        content = await endpoint.http.get(f"/v1/videos/{video['id']}/content")
        thumbnail = await endpoint.http.get(f"/v1/videos/{video['id']}/content?variant=thumbnail")
        deleted = await endpoint.http.delete(f"/v1/videos/{video['id']}")
        gone = await endpoint.http.get(f"/v1/videos/{video['id']}")
        return video, content, thumbnail, deleted, gone

    video, content, thumbnail, deleted, gone = endpoint(scenario)
    assert {key: video[key] for key in ("object", "status", "progress", "error", "prompt", "model", "expires_at")} == {
        "object": "video",
        "status": "completed",
        "progress": 100,
        "error": None,
        "prompt": "a cat",
        "model": "tiny",
        "expires_at": None,
    }
    # 1.5 s at 8 fps are 12 frames; 17 are made, of the next multiple of 64 pixels.
    assert (video["size"], video["seconds"], video["seed"], video["frames"]) == ("80x64", "1.5", 7, 12)
    assert video["generated"] == {"width": 128, "height": 64, "frames": 17}
    assert (video["steps"], video["guidance_scale"]) == ([[1, 1, 1], [1, 1, 1]], 2.0)
    assert video["completed_at"] >= video["created_at"]
    assert content.headers["content-type"] == "video/mp4"
    found, frames_THWC = decoded(content.content, tmp_path)
    assert (found.width, found.height, found.frames, found.fps) == (80, 64, 12, 8)
    assert frames_THWC.shape == (12, 64, 80, 3)
    assert Image.open(io.BytesIO(thumbnail.content)).format == "WEBP"
    assert deleted.json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "video_not_found"


def test_the_same_seed_gives_the_same_video_and_defaults_are_the_models(endpoint, tmp_path):
    async def scenario(endpoint):
        made = [await endpoint.create(seed=seed) for seed in (1, 1, 2)]
        for video in made:
            assert (await endpoint.ended(video["id"]))["status"] == "completed"
        contents = [await endpoint.content(video["id"]) for video in made]
        return made, contents, [endpoint.latents(video["id"]) for video in made]

    made, contents, latents = endpoint(scenario)
    assert (made[0]["size"], made[0]["seconds"], made[0]["frames"]) == ("64x64", "2.125", 17)
    assert same_latents(latents[0], latents[1])
    first, again, other = (decoded(content, tmp_path)[1] for content in contents)
    assert same_pictures(first, again)
    assert frame_differences(first, other).min() > 5


def test_a_form_is_read_like_json(endpoint):
    async def scenario(endpoint):
        fields = {"prompt": "a dog", "size": "64x64", "seconds": "1", "seed": "3", "guidance_scale": "1.5"}
        response = await endpoint.http.post("/v1/videos", files={name: (None, value) for name, value in fields.items()})
        return response.json()

    video = endpoint(scenario, generating=False)
    assert (video["prompt"], video["seed"], video["frames"], video["guidance_scale"]) == ("a dog", 3, 8, 1.5)


@pytest.mark.parametrize("way", ["file", "json", "brackets"])
def test_a_video_begins_with_the_picture_that_is_given(endpoint, tmp_path, way):
    ways = {
        "file": {"files": {"prompt": (None, "x"), "input_reference": ("upload", picture())}},
        "json": {"json": {"prompt": "x", "input_reference": {"image_url": DATA_URL}}},
        "brackets": {"files": {"prompt": (None, "x"), "input_reference[image_url]": (None, DATA_URL)}},
    }

    async def scenario(endpoint):
        video = (await endpoint.http.post("/v1/videos", **ways[way])).json()
        assert (await endpoint.ended(video["id"]))["status"] == "completed"
        return (await endpoint.http.get(f"/v1/videos/{video['id']}/content")).content

    _, frames_THWC = decoded(endpoint(scenario), tmp_path)
    assert len(frames_THWC) == 17
    red, green, blue = frames_THWC[0].mean(axis=(0, 1))
    assert red > green + 60
    assert red > blue + 60


def test_pages_follow_each_other_in_both_orders(endpoint):
    async def scenario(endpoint):
        ids = []
        for _ in range(5):
            ids.append((await endpoint.create())["id"])
            await asyncio.sleep(0.002)
        pages = {}
        for order in ("asc", "desc"):
            seen, after = [], {}
            while True:
                page = (await endpoint.http.get("/v1/videos", params={"limit": 2, "order": order, **after})).json()
                assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
                seen.append([video["id"] for video in page["data"]])
                if not page["has_more"]:
                    break
                after = {"after": page["last_id"]}
            pages[order] = seen
        nothing = (await endpoint.http.get("/v1/videos", params={"limit": 0})).json()
        return ids, pages, nothing

    ids, pages, nothing = endpoint(scenario, generating=False, slots=5)
    assert pages["asc"] == [ids[:2], ids[2:4], ids[4:]]
    assert pages["desc"] == [ids[:2:-1], ids[2:0:-1], ids[:1]]
    assert nothing == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": True}


def test_content_comes_in_ranges_and_as_headers_alone(endpoint):
    async def scenario(endpoint):
        video = await endpoint.ended((await endpoint.create())["id"])
        url = f"/v1/videos/{video['id']}/content"
        whole = await endpoint.http.get(url)
        part = await endpoint.http.get(url, headers={"range": "bytes=10-19"})
        head = await endpoint.http.head(url)
        outside = await endpoint.http.get(url, headers={"range": "bytes=99999999-"})
        stale = await endpoint.http.get(url, headers={"range": "bytes=0-9", "if-range": '"another"'})
        return whole, part, head, outside, stale

    whole, part, head, outside, stale = endpoint(scenario)
    size = len(whole.content)
    assert int(whole.headers["content-length"]) == size > 500
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(size))
    assert head.headers["accept-ranges"] == "bytes"
    assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{size}")
    assert (stale.status_code, stale.content) == (200, whole.content)


def test_content_that_does_not_exist_yet_says_so(endpoint):
    async def scenario(endpoint):
        video = await endpoint.create()
        return [await endpoint.http.get(f"/v1/videos/{video['id']}/content{q}") for q in ("", "?variant=thumbnail")]

    for response in endpoint(scenario, generating=False):
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "video_not_ready"


def test_a_running_video_plays_from_its_start_and_equals_the_finished_one(endpoint, tmp_path):
    async def scenario(endpoint):
        endpoint.worker.held_at = 3
        video = await endpoint.create(seconds=6)
        arrivals = []
        async for segment in live_segments(endpoint.store, endpoint.broker, video["id"]):
            arrivals.append(segment)
            # The beginning comes before the video is finished.
            if len(arrivals) == 4:
                assert endpoint.store.is_open(video["id"])
                endpoint.worker.held_at = math.inf
        late = await endpoint.http.get(f"/v1/videos/{video['id']}/content?stream=1")
        content = await endpoint.http.get(f"/v1/videos/{video['id']}/content")
        return arrivals, late.content, content.content

    arrivals, late, content = endpoint(scenario)
    # 48 frames: one for the first unit, eight for each of the other six, cut in the last; and the init segment.
    assert len(arrivals) == 8
    assert b"".join(arrivals) == late
    live_probe, live_frames = decoded(late, tmp_path)
    _, frames_THWC = decoded(content, tmp_path)
    assert live_frames.shape == frames_THWC.shape == (48, 64, 64, 3)
    np.testing.assert_array_equal(live_frames, frames_THWC)
    assert live_probe.width == 64


def test_a_cancelled_video_has_failed_and_stays_so(endpoint):
    async def scenario(endpoint):
        endpoint.worker.held_at = 3
        video = await endpoint.create(seconds=30)
        await until(lambda: endpoint.store.video(video["id"]).progress > 0)
        cancelled = (await endpoint.http.post(f"/v1/videos/{video['id']}/cancel")).json()
        content = await endpoint.http.get(f"/v1/videos/{video['id']}/content")
        again = (await endpoint.http.post(f"/v1/videos/{video['id']}/cancel")).json()
        # A cancelled session has left the engine; the next video is made.
        assert endpoint.worker.engine.sessions == 0
        endpoint.worker.held_at = math.inf
        after = await endpoint.ended((await endpoint.create())["id"])
        return cancelled, again, content, after

    cancelled, again, content, after = endpoint(scenario)
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")
    assert 0 < cancelled["progress"] < 100
    assert again == cancelled
    assert content.json()["error"]["code"] == "video_failed"
    assert after["status"] == "completed"


def test_a_job_goes_on_from_the_last_stored_unit(endpoint, tmp_path):
    async def interrupted(endpoint):
        endpoint.worker.held_at = 3
        video = await endpoint.create(seconds=6, seed=5)
        await endpoint.units(video["id"], 3)
        return video["id"]

    async def continued(endpoint):
        job = next(endpoint.store.unfinished())
        video = await endpoint.ended(job.id)
        assert endpoint.store.control(job.id).attempts == 2
        return video, await endpoint.content(job.id), endpoint.latents(job.id)

    async def undisturbed(endpoint):
        video = await endpoint.made(seconds=6, seed=5)
        return await endpoint.content(video["id"]), endpoint.latents(video["id"])

    video_id = endpoint(interrupted)
    before = (tmp_path / "store" / "videos" / video_id / "segments" / "000001.m4s").stat().st_mtime_ns
    video, content, latents = endpoint(continued)
    assert video["status"] == "completed"
    assert (tmp_path / "store" / "videos" / video_id / "segments" / "000001.m4s").stat().st_mtime_ns == before
    expected, expected_latents = endpoint(undisturbed)
    assert same_latents(latents, expected_latents)
    _, resumed = decoded(content, tmp_path)
    assert resumed.shape == (48, 64, 64, 3)
    assert same_pictures(resumed, decoded(expected, tmp_path)[1])


def test_all_of_it_works_on_s3(endpoint, s3_store, tmp_path):
    async def scenario(endpoint):
        video = await endpoint.create(seconds=2, input_reference={"image_url": DATA_URL})
        live = [segment async for segment in live_segments(endpoint.store, endpoint.broker, video["id"])]
        assert (await endpoint.ended(video["id"]))["status"] == "completed"
        content = await endpoint.http.get(f"/v1/videos/{video['id']}/content")
        part = await endpoint.http.get(f"/v1/videos/{video['id']}/content", headers={"range": "bytes=-5"})
        assert part.content == content.content[-5:]
        assert (await endpoint.http.delete(f"/v1/videos/{video['id']}")).status_code == 200
        return live, content.content

    live, content = endpoint(scenario, store=s3_store)
    assert len(live) == 1 + 3
    assert decoded(content, tmp_path)[0].frames == 16


def test_a_job_for_another_version_of_the_model_fails_clearly(endpoint, new_job, store):
    job = new_job()
    store.add(job)
    video = endpoint(lambda endpoint: endpoint.ended(job.id))
    assert (video["status"], video["error"]["code"]) == ("failed", "model_changed")


def test_health_and_readiness(endpoint):
    async def scenario(endpoint):
        return [(await endpoint.http.get(path)).json() for path in ("/health", "/ready")]

    assert endpoint(scenario, generating=False) == [{"status": "ok"}, {"status": "ready"}]
