import time

import pytest

from rayramid.models import storage
from rayramid.serve.job import Outcome, Progress
from rayramid.serve.store import Claim, Control, Store
from rayramid.serve.wire import VideoError


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    return Store(str(tmp_path / "store")) if request.param == "folder" else request.getfixturevalue("s3_store")


def progress(steps):
    return Progress(steps_done=steps, steps_total=9, units_done=1, prompts=((0, "a cat"),))


def test_a_job_goes_through_its_life(store, new_job):
    job = new_job()
    assert store.video(job.id) is None
    store.add(job)
    assert store.job(job.id) == job
    assert store.video(job.id).status == "queued"
    assert [each.id for each in store.unfinished()] == [job.id]

    store.set_progress(job.id, progress(3))
    assert (store.video(job.id).status, store.video(job.id).progress) == ("in_progress", 33)

    store.end(job.id)
    video = store.video(job.id)
    assert (video.status, video.progress, video.error) == ("completed", 100, None)
    assert video.completed_at >= video.created_at
    assert list(store.unfinished()) == []
    assert not store.is_open(job.id)


def test_the_first_outcome_holds(store, new_job):
    job = new_job()
    store.add(job)
    cancelled = VideoError(code="cancelled", message="The job was cancelled.")
    assert store.end(job.id, cancelled).error == cancelled
    assert store.end(job.id).error == cancelled
    assert store.video(job.id).status == "failed"
    assert store.video(job.id).completed_at is None


def test_an_attempt_has_one_owner_and_ends_when_a_later_one_begins(store, new_job):
    job = new_job()
    store.add(job)
    assert store.control(job.id) == Control(attempts=0, ended=False, paused=frozenset())
    assert store.begin(job.id, 1)
    assert not store.begin(job.id, 1)
    assert store.begin(job.id, 2)
    store.pause(job.id)
    assert store.control(job.id) == Control(attempts=2, ended=False, paused=frozenset({2}))
    store.end(job.id)
    assert store.control(job.id).ended


def test_attempts_that_got_no_further_are_counted(store, new_job):
    job = new_job()
    store.add(job)
    store.begin(job.id, 1)
    store.begin(job.id, 2)
    assert store.tries(job.id, 2) == 2
    storage.write_atomic(store.latents(job.id, 0), b"")
    assert (store.units(job.id), store.tries(job.id, 2)) == (1, 0)
    store.begin(job.id, 3)
    assert store.tries(job.id, 3) == 1


def test_of_a_unit_and_a_change_of_prompt_the_first_decides(store, new_job):
    job = new_job()
    assert store.decide(job.id, 0, "a cat") == "a cat"
    assert store.decide(job.id, 1, None) is None
    assert store.change_prompt(job.id, 0, 3, "a dog") == 2
    assert store.decide(job.id, 2, None) == "a dog"
    assert store.change_prompt(job.id, 0, 3, "a cow") is None


def test_a_key_stands_for_the_first_job_until_that_is_deleted(store, new_job):
    job = new_job().model_copy(update={"key": "abc"})
    first, second = Claim(job_id=job.id, request="x"), Claim(job_id="video_2", request="x")
    assert store.claim("abc", first) == first
    assert store.claim("abc", second) == first
    store.add(job)
    store.delete(job.id)
    assert store.claim("abc", second) == second


def test_ended_jobs_expire_and_others_stay(store, new_job):
    store.keep_s = 100.0
    ended, running = new_job(), new_job()
    for job in (ended, running):
        store.add(job)
    store.end(ended.id)
    assert store.video(ended.id).expires_at == store.outcome(ended.id).ended_at + 100
    assert store.video(running.id).expires_at is None
    assert list(store.expired(time.time() + 50)) == []
    assert list(store.expired(time.time() + 102)) == [ended.id]
    store.keep_s = None
    assert list(store.expired(time.time() + 102)) == []


def test_what_death_left_of_an_end_is_done(store, new_job):
    ended, waiting = new_job(), new_job()
    for job in (ended, waiting):
        store.add(job)
    # The outcome is decided, and nothing moved yet.
    outcome = Outcome(status="completed", ended_at=1)
    storage.create(store.at(ended.id, "control", "outcome.json"), outcome.model_dump_json().encode())
    assert store.video(ended.id).status == "completed"
    assert [job.id for job in store.unfinished()] == [waiting.id]
    assert (store.is_open(ended.id), store.job(ended.id)) == (False, ended)
    assert set(store.newest_first()) == {ended.id, waiting.id}


def test_deleting_leaves_nothing(store, new_job):
    job = new_job()
    store.add(job)
    store.begin(job.id, 1)
    store.set_progress(job.id, progress(0))
    store.end(job.id)
    store.delete(job.id)
    assert store.video(job.id) is None
    assert store.newest_first() == []
    assert list(storage.list_files(store.url)) == []


def test_ids_sort_by_time(store, new_job):
    jobs = [new_job() for _ in range(3)]
    for job in jobs:
        store.add(job)
    by_time = sorted((job.id for job in jobs), key=lambda each: each[:18], reverse=True)
    assert [each[:18] for each in store.newest_first()] == [each[:18] for each in by_time]
