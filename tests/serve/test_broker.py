import asyncio

from rayramid.serve import broker as broker_module
from rayramid.serve.broker import ATTEMPTS, Broker


class Workers:
    """Carries out attempts when told to: `dispatch` waits for `finish` or `die`."""

    def __init__(self, store):
        self.store = store
        self.attempts = []
        self.waiting = {}

    async def dispatch(self, job_id, attempt):
        self.store.begin(job_id, attempt)
        self.attempts.append((job_id, attempt))
        self.waiting[job_id] = asyncio.get_running_loop().create_future()
        await self.waiting[job_id]

    def finish(self, job_id):
        self.store.end(job_id)
        self.waiting.pop(job_id).set_result(None)

    def die(self, job_id):
        self.waiting.pop(job_id).set_exception(RuntimeError("the replica died"))


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def make(store, *, slots=1, queue_limit=8):
    workers = Workers(store)
    return Broker(store, workers.dispatch, slots=slots, queue_limit=queue_limit), workers


def test_jobs_run_in_turn_as_slots_become_free(store, new_job):
    async def scenario():
        broker, workers = make(store, slots=2)
        jobs = [new_job(owner=owner) for owner in ("a", "a", "a", "a", "b")]
        for job in jobs:
            assert (await broker.submit(job)).accepted
        await until(lambda: len(workers.attempts) == 2)
        assert {job_id for job_id, _ in workers.attempts} == {jobs[0].id, jobs[1].id}
        workers.finish(jobs[0].id)
        workers.finish(jobs[1].id)
        # Owner a's third job came before b's first, which comes before a's fourth.
        await until(lambda: len(workers.attempts) == 4)
        assert {job_id for job_id, _ in workers.attempts[2:]} == {jobs[2].id, jobs[4].id}

    asyncio.run(scenario())


def test_a_full_queue_says_when_to_come_back(store, new_job):
    async def scenario():
        broker, workers = make(store, slots=1, queue_limit=2)
        running, *waiting = [new_job() for _ in range(3)]
        await broker.submit(running)
        await until(lambda: workers.attempts)
        for job in waiting:
            assert (await broker.submit(job)).accepted
        refused = new_job()
        admission = await broker.submit(refused)
        # Three turns of the ten seconds that a job is first guessed to take.
        assert (admission.accepted, admission.retry_after_s) == (False, 30)
        assert store.job(refused.id) is None

    asyncio.run(scenario())


def test_a_job_whose_worker_died_is_the_next_one(store, new_job, monkeypatch):
    monkeypatch.setattr(broker_module, "RETRY_S", 0)

    async def scenario():
        broker, workers = make(store)
        first, second = new_job(), new_job()
        await broker.submit(first)
        await broker.submit(second)
        await until(lambda: first.id in workers.waiting)
        workers.die(first.id)
        await until(lambda: first.id in workers.waiting)
        assert workers.attempts == [(first.id, 1), (first.id, 2)]
        workers.finish(first.id)
        await until(lambda: second.id in workers.waiting)

    asyncio.run(scenario())


def test_a_job_that_kills_every_worker_fails_in_the_end(store, new_job, monkeypatch):
    monkeypatch.setattr(broker_module, "RETRY_S", 0)

    async def scenario():
        broker, workers = make(store)
        job = new_job()
        await broker.submit(job)
        for _ in range(ATTEMPTS):
            await until(lambda: job.id in workers.waiting)
            workers.die(job.id)
        await until(lambda: store.outcome(job.id))
        assert store.video(job.id).error.code == "server_error"
        assert len(workers.attempts) == ATTEMPTS

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
        await until(lambda: running.id in workers.waiting)
        await broker.cancel(waiting.id)
        await broker.cancel(running.id)
        assert workers.waiting[running.id].cancelled()
        for job in (running, waiting):
            assert store.video(job.id).error.code == "cancelled"
        await until(lambda: next_one.id in workers.waiting)
        assert [job_id for job_id, _ in workers.attempts] == [running.id, next_one.id]

    asyncio.run(scenario())
