import asyncio
import time

from hands import make
from waiting import until

from rayramid.models import storage
from rayramid.serve import broker as broker_module
from rayramid.serve import expiry
from rayramid.serve.admission import Capacity
from rayramid.serve.retries import TRIES


def test_jobs_run_in_turn_as_slots_become_free(store, new_job):
    async def scenario():
        broker, workers = make(store, slots=2)
        jobs = [new_job(owner=owner) for owner in ("a", "a", "a", "a", "b")]
        for job in jobs[:4]:
            assert (await broker.submit(job)).accepted
        await until(lambda: len(workers.attempts) == 2)
        workers.finish(jobs[0].id)
        workers.finish(jobs[1].id)
        await broker.submit(jobs[4])
        await until(lambda: len(workers.attempts) == 4)
        assert {job_id for job_id, _ in workers.attempts[2:]} <= {each.id for each in jobs[2:]}

    asyncio.run(scenario())


def test_a_job_whose_worker_died_is_taken_up_again(store, new_job, monkeypatch):
    monkeypatch.setattr(broker_module, "RETRY_S", 0)

    async def scenario():
        broker, workers = make(store)
        first = new_job()
        await broker.submit(first)
        await until(lambda: first.id in workers.running)
        await asyncio.sleep(0.002)
        second = new_job()
        await broker.submit(second)
        workers.die(first.id)
        await until(lambda: len(workers.attempts) == 2)
        assert workers.attempts == [(first.id, 1), (first.id, 2)]
        workers.finish(first.id)
        await until(lambda: second.id in workers.running)

    asyncio.run(scenario())


def test_a_job_that_kills_every_worker_at_the_same_place_fails_in_the_end(store, new_job, monkeypatch):
    monkeypatch.setattr(broker_module, "RETRY_S", 0)

    async def scenario():
        broker, workers = make(store)
        job = new_job()
        await broker.submit(job)
        for number in range(2 * TRIES):
            await until(lambda number=number: len(workers.attempts) == number + 1 and job.id in workers.running)
            if number == TRIES - 1:
                # A finished unit is a new beginning.
                storage.write_atomic(store.latents(job.id, 0), b"")
            workers.die(job.id)
        await until(lambda: store.outcome(job.id))
        assert store.video(job.id).error.code == "server_error"
        assert len(workers.attempts) == 2 * TRIES

    asyncio.run(scenario())


def test_a_new_broker_takes_up_what_the_store_holds(store, new_job):
    async def scenario():
        done, begun, waiting = new_job(), new_job(), new_job()
        for job in (done, begun, waiting):
            store.add(job)
        store.end(done.id)
        store.begin(begun.id, 1)
        broker, workers = make(store, slots=2)
        await broker.recover()
        await until(lambda: len(workers.attempts) == 2)
        assert set(workers.attempts) == {(begun.id, 2), (waiting.id, 1)}

    asyncio.run(scenario())


def test_cancelling_ends_waiting_and_running_jobs(store, new_job):
    async def scenario():
        broker, workers = make(store)
        running, waiting, next_one = new_job(), new_job(), new_job()
        for job in (running, waiting, next_one):
            await broker.submit(job)
        await until(lambda: running.id in workers.running)
        await broker.cancel(waiting.id)
        await broker.cancel(running.id)
        assert running.id not in workers.running
        for job in (running, waiting):
            assert store.video(job.id).error.code == "cancelled"
        await until(lambda: next_one.id in workers.running)
        assert [job_id for job_id, _ in workers.attempts] == [running.id, next_one.id]

    asyncio.run(scenario())


def test_a_job_that_is_not_completed_in_time_fails_whether_it_waits_or_runs(store, new_job):
    async def scenario():
        broker, workers = make(store)
        running, waiting = new_job(deadline_seconds=2), new_job(deadline_seconds=2)
        for job in (running, waiting):
            await broker.submit(job)
        await until(lambda: running.id in workers.running)
        await until(lambda: store.outcome(running.id) and store.outcome(waiting.id))
        assert {store.outcome(job.id).error.code for job in (running, waiting)} == {"deadline_exceeded"}
        await until(lambda: not workers.running)
        assert time.time() >= running.deadline

    asyncio.run(scenario())


def test_a_slot_goes_to_another_owner_at_a_units_edge_and_the_job_goes_on_later(store, new_job):
    async def scenario():
        broker, workers = make(store, slots=2)
        mine = [new_job(owner="me") for _ in range(2)]
        theirs = new_job(owner="them")
        for job in mine:
            await broker.submit(job)
        await until(lambda: len(workers.running) == 2)
        await broker.submit(theirs)
        for job in mine:
            workers.step(job.id, 1)
        newer = max(mine, key=lambda job: job.id)
        await until(lambda: store.control(newer.id).paused == {1})
        workers.leave(newer.id)
        await until(lambda: theirs.id in workers.running)
        assert store.video(newer.id).status == "queued" or store.is_open(newer.id)
        workers.finish(theirs.id)
        await until(lambda: newer.id in workers.running)
        assert workers.attempts[-1] == (newer.id, 2)

    asyncio.run(scenario())


def test_who_watches_hears_places_times_and_the_end(store, new_job):
    async def scenario():
        broker, workers = make(store)
        running, waiting = new_job(), new_job()
        broker.know(running.model_version, Capacity(cache_tokens=10**6, tokens_per_second=100))
        await broker.submit(running)
        await until(lambda: running.id in workers.running)
        await broker.submit(waiting)
        seconds = running.work.tokens / 100
        events = broker.events(waiting.id)
        first = await anext(events)
        assert (first.queue_position, first.progress) == (1, None)
        assert abs(first.estimated_seconds - 2 * seconds) < 1
        workers.finish(running.id)
        async with asyncio.timeout(60):
            while (standing := await anext(events)).queue_position:
                pass
            workers.step(waiting.id, 3)
            while (standing := await anext(events)).progress.steps_done < 3:
                pass
            assert standing.progress.percent == 33
            workers.finish(waiting.id)
            assert [event async for event in events][-1:] in ([], [standing])
        assert [event async for event in broker.events(waiting.id)] == []

    asyncio.run(scenario())


def test_draining_lets_jobs_leave_off_and_begins_nothing(store, new_job):
    async def scenario():
        broker, workers = make(store)
        running, waiting = new_job(), new_job()
        await broker.submit(running)
        await until(lambda: running.id in workers.running)
        draining = asyncio.create_task(broker.drain())
        await broker.submit(waiting)
        await asyncio.sleep(0)
        workers.step(running.id, 1)
        await until(lambda: store.control(running.id).paused == {1})
        assert not draining.done()
        workers.leave(running.id)
        await draining
        assert (workers.running, len(workers.attempts)) == ({}, 1)
        assert {job.id for job in store.unfinished()} == {running.id, waiting.id}

    asyncio.run(scenario())


def test_expired_videos_are_swept(store, new_job, monkeypatch):
    monkeypatch.setattr(expiry, "SWEEP_S", 0.05)
    store.keep_s = 1.0

    async def scenario():
        broker, workers = make(store)
        await broker.recover()
        job = new_job()
        await broker.submit(job)
        await until(lambda: job.id in workers.running)
        workers.finish(job.id)
        await until(lambda: store.video(job.id) is None)

    asyncio.run(scenario())
