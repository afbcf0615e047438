"""Which jobs a broker lets wait, and what it says to the others."""

import asyncio
import time
from dataclasses import replace

from hands import make
from waiting import until

from rayramid.serve.admission import Admission, Capacity
from rayramid.serve.entry import Entry
from rayramid.serve.outlook import FIRST_GUESS_S, outlook
from rayramid.serve.refusals import Situation, refusal
from rayramid.serve.spec import KeyLimits


def test_a_full_queue_says_when_to_come_back(store, new_job):
    async def scenario():
        broker, workers = make(store, slots=1, queue_limit=2)
        running, *waiting = [new_job() for _ in range(3)]
        begun = time.monotonic()
        await broker.submit(running)
        await until(lambda: workers.attempts)
        for job in waiting:
            assert (await broker.submit(job)).accepted
        refused = new_job()
        assert await broker.submit(refused) == Admission(False, "queue_full", FIRST_GUESS_S)
        assert store.job(refused.id) is None
        # At 10 tokens a second the running job will be done, and the next one begun, when its tokens are.
        broker.know(refused.model_version, Capacity(cache_tokens=10**6, tokens_per_second=10))
        seconds = running.work.tokens / 10
        assert abs((await broker.submit(refused)).retry_after_s - seconds) <= 1
        # A third of the way later it takes two thirds of the time, at the speed that was measured.
        await asyncio.sleep(1.0)
        workers.step(running.id, 3)
        await until(lambda: broker._entries[running.id].progress.steps_done == 3)
        elapsed_s = time.monotonic() - begun
        assert 2 <= (await broker.submit(refused)).retry_after_s <= 2 * elapsed_s + 1

    asyncio.run(scenario())


def test_what_fits_no_worker_is_refused_and_others_wait_for_memory(store, new_job):
    async def scenario():
        broker, workers = make(store, slots=4)
        job = new_job()
        await asyncio.sleep(0.002)
        second = new_job()
        broker.know(job.model_version, Capacity(cache_tokens=job.work.cached_tokens * 3 // 2))
        assert await broker.submit(new_job(size="512x512")) == Admission(False, "too_large")
        await broker.submit(job)
        await broker.submit(second)
        await until(lambda: job.id in workers.running)
        await asyncio.sleep(0.1)
        assert second.id not in workers.running
        workers.finish(job.id)
        await until(lambda: second.id in workers.running)

    asyncio.run(scenario())


def test_submitting_again_changes_nothing(store, new_job):
    async def scenario():
        broker, workers = make(store)
        job = new_job().model_copy(update={"key": "abc"})
        admissions = await asyncio.gather(*(broker.submit(job) for _ in range(3)))
        assert admissions == [Admission(True)] * 3
        await until(lambda: job.id in workers.running)
        workers.finish(job.id)
        await until(lambda: not broker._entries)
        assert await broker.submit(job) == Admission(True)
        assert workers.attempts == [(job.id, 1)]

    asyncio.run(scenario())


def test_what_no_waiting_would_change_is_said_before_what_it_would(new_job):
    job, now = new_job(), 86400.0 - 100
    met = Situation(
        capacity=Capacity(cache_tokens=job.work.cached_tokens),
        own=[Entry(new_job(), None)],
        arriving=1,
        spent=1,
        waiting=9,
        queue_limit=8,
    )
    limits = KeyLimits(jobs=2, tokens_per_day=job.work.tokens)

    def said(met, limits):
        admission = refusal(job, limits, met, lambda: outlook(0.0, [], [], 1, None), now)
        return (admission.reason, admission.retry_after_s) if admission else None

    assert said(replace(met, capacity=Capacity(job.work.cached_tokens - 1)), limits) == ("too_large", 0)
    assert said(met, limits) == ("too_many_jobs", FIRST_GUESS_S)
    assert said(replace(met, arriving=0), limits) == ("quota", 100)
    assert said(replace(met, arriving=0, spent=0), limits) == ("queue_full", FIRST_GUESS_S)
    assert said(replace(met, arriving=0, spent=0, waiting=8), limits) is None
    assert said(replace(met, capacity=None, waiting=8), KeyLimits()) is None
