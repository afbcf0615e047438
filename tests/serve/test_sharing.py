"""Slots and forwards among users: preemption at a unit's edge, here or elsewhere, with a real worker."""

import asyncio
import math
from pathlib import Path

from sameness import same_latents, same_pictures
from waiting import until

from rayramid.serve.worker import Worker

HEADERS = {owner: {"Authorization": f"Bearer {owner}"} for owner in ("mine", "theirs")}


async def post(endpoint, owner, **fields):
    response = await endpoint.http.post("/v1/videos", json={"prompt": "a cat", **fields}, headers=HEADERS[owner])
    assert response.status_code == 200, response.text
    await asyncio.sleep(0.002)
    return response.json()["id"]


async def leaving(endpoint, name):
    """Let a held video go on when it has been asked to leave off, which its next sign of life brings."""
    endpoint.worker.held_at += 1
    await until(lambda: endpoint.store.control(name).paused)
    endpoint.worker.held_at = math.inf


def test_another_users_video_takes_a_slot_at_a_units_edge_and_the_first_goes_on_and_is_the_same(endpoint, frames_of):
    async def scenario(endpoint):
        endpoint.worker.held_at = 3
        mine = [await post(endpoint, "mine", seed=4, seconds=8, steps=2) for _ in range(2)]
        await endpoint.units(mine[1], 3)
        theirs = await post(endpoint, "theirs")
        await leaving(endpoint, mine[1])
        videos = {name: await endpoint.ended(name) for name in (theirs, *mine)}
        assert {video["status"] for video in videos.values()} == {"completed"}
        attempts = [endpoint.store.control(name) for name in mine]
        again = await endpoint.made(seed=4, seconds=8, steps=2)
        assert same_latents(endpoint.latents(mine[1]), endpoint.latents(again["id"]))
        return attempts, [frames_of(await endpoint.content(name)) for name in (mine[1], again["id"])]

    attempts, (preempted_THWC, undisturbed_THWC) = endpoint(scenario, slots=2)
    # The newer one left off at its first attempt and went on in a second one.
    assert [(each.attempts, each.paused) for each in attempts] == [(1, frozenset()), (2, frozenset({1}))]
    assert same_pictures(preempted_THWC, undisturbed_THWC)


def test_an_urgent_video_of_the_same_user_goes_first(endpoint):
    async def scenario(endpoint):
        endpoint.worker.held_at = 2
        running = await post(endpoint, "mine", seconds=8, steps=2)
        await endpoint.units(running, 2)
        plain = await post(endpoint, "mine")
        urgent = await post(endpoint, "mine", priority=1)
        await leaving(endpoint, running)
        for name in (running, plain, urgent):
            await endpoint.ended(name)
        return [
            Path(endpoint.store.at(name, "control", "outcome.json")).stat().st_mtime_ns
            for name in (urgent, running, plain)
        ]

    ended = endpoint(scenario, slots=1)
    assert ended == sorted(ended)


def test_a_video_that_left_one_worker_goes_on_at_another(endpoint, loaded):
    async def scenario(endpoint):
        endpoint.worker.held_at = 3
        name = await post(endpoint, "mine", seconds=8, steps=2)
        await endpoint.units(name, 3)
        draining = asyncio.create_task(endpoint.broker.drain())
        await asyncio.sleep(0)
        await leaving(endpoint, name)
        await draining
        units = endpoint.store.units(name)
        assert endpoint.worker.engine.sessions == 0
        other = Worker(
            endpoint.store,
            endpoint.worker._tools.sampler,
            loaded.vae,
            endpoint.worker._tools.embed,
            version=endpoint.store.job(name).model_version,
            tokens_per_step=10_000,
            cache_tokens=100_000,
        )
        loop = asyncio.create_task(other.engine.run())
        told = [progress async for progress in other.run(name, 2)]
        loop.cancel()
        return units, told, endpoint.store.outcome(name).status

    units, told, status = endpoint(scenario)
    assert status == "completed"
    assert 3 <= units < 9
    # Nothing that was there is made again.
    assert told[0].units_done >= units - 1
    assert told[-1].units_done == 9


def test_videos_wait_for_memory_and_all_are_made(endpoint):
    async def work(endpoint):
        return endpoint.store.job((await endpoint.create())["id"]).work.cached_tokens

    async def scenario(endpoint):
        endpoint.worker.held_at = 1
        names = [await post(endpoint, "mine") for _ in range(3)]
        await until(lambda: endpoint.worker.engine.sessions)
        await asyncio.sleep(0.1)
        seen = [endpoint.worker.engine.sessions]
        endpoint.worker.held_at = math.inf
        while any(endpoint.store.is_open(name) for name in names):
            seen.append(endpoint.worker.engine.sessions)
            await asyncio.sleep(0.005)
        return [endpoint.store.outcome(name).status for name in names], max(seen)

    need = endpoint(work, generating=False)
    statuses, most = endpoint(scenario, cache_tokens=need * 3 // 2)
    assert (statuses, most) == (["completed"] * 3, 1)
