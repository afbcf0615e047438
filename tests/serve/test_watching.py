"""Watching over real HTTP: live video, events, and clients that go away."""

import asyncio
import json
import math

import httpx
import pytest
from waiting import until

from rayramid.models import storage
from rayramid.serve import watching
from rayramid.serve.estimate import LEAST_S
from rayramid.serve.scheduler import UnavailableError


async def events_of(url, video_id, query=""):
    """Names and data of the events of a video, as they come."""
    async with (
        httpx.AsyncClient(timeout=200) as http,
        http.stream("GET", f"{url}/v1/videos/{video_id}/events{query}") as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        name = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def test_events_tell_place_progress_and_time_and_end_with_the_video(endpoint):
    async def scenario(endpoint):
        endpoint.worker.held_at = 1
        running = await endpoint.create(seconds=1)
        waiting = await endpoint.create(seconds=4)
        heard = []
        async for name, event in events_of(endpoint.url, waiting["id"]):
            heard.append((name, event))
            if len(heard) == 1:
                await asyncio.sleep(LEAST_S)
                # All of the first video, a part of the second.
                endpoint.worker.held_at = 3
            elif event["status"] == "in_progress":
                endpoint.worker.held_at = math.inf
        late = [each async for each in events_of(endpoint.url, running["id"])]
        return heard, late, (await endpoint.http.get(f"/v1/videos/{waiting['id']}")).json()

    heard, late, video = endpoint(scenario, server=True, slots=1)
    assert heard[0][1] | {"estimated_seconds": None} == {
        "id": video["id"],
        "object": "video.event",
        "status": "queued",
        "progress": 0,
        "queue_position": 1,
        "estimated_seconds": None,
        "playable_seconds": 0,
    }
    *progress, (last, data) = heard
    assert ({name for name, _ in progress}, last) == ({"progress"}, "completed")
    assert data == video
    made = [event for _, event in progress if event["status"] == "in_progress"]
    assert made
    assert all(event["queue_position"] == 0 for event in made)
    for key in ("progress", "playable_seconds"):
        values = [event[key] for event in made]
        assert values == sorted(values)
    # The first job has told how fast things go.
    assert made[-1]["estimated_seconds"] is not None
    assert [name for name, _ in late] == ["completed"]


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_video_that_is_cancelled_or_deleted_ends_the_events(endpoint, status):
    async def scenario(endpoint):
        endpoint.worker.held_at = 3
        others = [await endpoint.create(seconds=8) for _ in range(2 if status == "queued" else 0)]
        cancelled, deleted = [(await endpoint.create(seconds=8))["id"] for _ in range(2)]
        heard = {cancelled: [], deleted: []}
        watching = [asyncio.create_task(collect(endpoint, *each)) for each in heard.items()]
        await until(lambda: all((status, "progress") in each for each in heard.values()))
        await endpoint.http.post(f"/v1/videos/{cancelled}/cancel")
        await endpoint.http.delete(f"/v1/videos/{deleted}")
        await asyncio.gather(*watching)
        assert all(endpoint.store.is_open(each["id"]) for each in others)
        await until(lambda: not list(storage.list_files(endpoint.store.at(deleted))))
        return *heard.values(), (await endpoint.http.get(f"/v1/videos/{deleted}")).status_code

    async def collect(endpoint, video_id, heard):
        async for name, event in events_of(endpoint.url, video_id):
            heard.append((event["status"], name))

    cancelled, deleted, answer = endpoint(scenario, server=True, slots=2)
    assert cancelled[-1] == ("failed", "failed")
    assert {name for _, name in (*cancelled[:-1], *deleted)} == {"progress"}
    assert answer == 404


def test_events_of_no_video_are_an_error(endpoint):
    response = endpoint(lambda endpoint: endpoint.http.get("/v1/videos/video_1/events"), generating=False)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "video_not_found")


def test_the_first_frame_arrives_before_the_rest_is_made(endpoint, frames_of):
    async def scenario(endpoint):
        endpoint.worker.held_at = 3
        video = await endpoint.create(seconds=20)
        parts, when = [], []
        async with (
            httpx.AsyncClient(timeout=200) as http,
            http.stream("GET", f"{endpoint.url}/v1/videos/{video['id']}/content?stream=1") as response,
        ):
            assert (response.status_code, response.headers["content-type"]) == (200, "video/mp4")
            async for part in response.aiter_raw():
                parts.append(part)
                when.append(endpoint.store.units(video["id"]))
                endpoint.worker.held_at = math.inf
        return b"".join(parts), when, await endpoint.content(video["id"])

    live, when, content = endpoint(scenario, server=True)
    assert when[0] <= 3
    # The last unit is shown before its latents are stored.
    assert when[-1] >= 20
    assert (frames_of(live) == frames_of(content)).all()


@pytest.mark.parametrize("what", ["content?stream=1&", "events?"])
@pytest.mark.parametrize("cancel", [True, False])
def test_a_client_that_leaves_ends_its_video_if_it_asked_for_that(endpoint, what, cancel):
    async def scenario(endpoint):
        endpoint.worker.held_at = 3
        video = await endpoint.create(seconds=30)
        url = f"{endpoint.url}/v1/videos/{video['id']}/{what}cancel_on_disconnect={cancel}"
        async with httpx.AsyncClient(timeout=200) as http, http.stream("GET", url) as response:
            await anext(response.aiter_raw())
        if not cancel:
            endpoint.worker.held_at = 5
            await endpoint.units(video["id"], 5)
            return (await endpoint.http.get(f"/v1/videos/{video['id']}")).json()
        video = await endpoint.ended(video["id"])
        await until(lambda: not endpoint.worker.engine.sessions)
        return video

    video = endpoint(scenario, server=True)
    if cancel:
        assert video["error"]["code"] == "cancelled"
    else:
        assert video["status"] == "in_progress"


def test_one_that_stays_to_the_end_cancels_nothing(endpoint):
    async def scenario(endpoint):
        video = await endpoint.create()
        async with httpx.AsyncClient(timeout=200) as http:
            await http.get(f"{endpoint.url}/v1/videos/{video['id']}/content?stream=1&cancel_on_disconnect=1")
        return await endpoint.ended(video["id"])

    assert endpoint(scenario, server=True)["status"] == "completed"


def test_who_waits_and_watches_asks_the_store_for_nothing(endpoint, monkeypatch):
    asked = []

    def counted(name):
        plain = getattr(storage, name)
        return lambda *args, **kwargs: (asked.append((name, args)), plain(*args, **kwargs))[1]

    async def scenario(endpoint):
        videos = [await endpoint.create() for _ in range(3)]
        async with httpx.AsyncClient(timeout=200, limits=httpx.Limits(max_connections=100)) as http:
            streams = [
                asyncio.create_task(http.get(f"{endpoint.url}/v1/videos/{video['id']}/{what}"))
                for video in videos
                for what in ("events", "content?stream=1")
                for _ in range(10)
            ]
            await until(lambda: endpoint.broker.watchers == len(streams))
            await asyncio.sleep(0.5)
            for name in ("read_bytes", "exists", "list_files", "stat", "write_atomic"):
                monkeypatch.setattr(storage, name, counted(name))
            await asyncio.sleep(1.5)
            seen = list(asked)
            for stream in streams:
                stream.cancel()
            await asyncio.wait(streams)
        return seen

    assert endpoint(scenario, server=True, generating=False, slots=1) == []


def test_a_watcher_outlives_the_broker(store, new_job):
    class Dying:
        """Says where a job stands and dies, twice; the third lives until the job has ended."""

        lives = 0

        async def events(self, job_id):
            self.lives += 1
            yield self.lives
            if self.lives < 3:
                raise UnavailableError
            store.end(job_id)

    job = new_job()
    store.add(job)

    async def scenario():
        return [standing async for standing in watching.standings(store, Dying(), job.id)]

    assert asyncio.run(scenario()) == [1, 2, 3]


def test_silence_is_filled_with_pings(endpoint, monkeypatch):
    monkeypatch.setattr(watching, "PING_S", 0.05)

    async def scenario(endpoint):
        video = await endpoint.create()
        async with (
            httpx.AsyncClient(timeout=200) as http,
            http.stream("GET", f"{endpoint.url}/v1/videos/{video['id']}/events") as response,
        ):
            lines = response.aiter_lines()
            while not (line := await anext(lines)).startswith(":"):
                pass
            return line

    assert endpoint(scenario, server=True, generating=False) == ": ping"
