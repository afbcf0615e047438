import pytest

from rayramid.models import storage
from rayramid.serve.job import Progress
from rayramid.serve.store import Store
from rayramid.serve.wire import VideoError


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    return Store(str(tmp_path / "store")) if request.param == "folder" else request.getfixturevalue("s3_store")


def test_a_job_goes_through_its_life(store, new_job):
    job = new_job()
    assert store.video(job.id) is None
    store.add(job)
    assert store.job(job.id) == job
    assert store.video(job.id).status == "queued"
    assert [each.id for each in store.unfinished()] == [job.id]

    store.set_progress(job.id, Progress(steps_done=3, steps_total=9, units_done=1))
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
    assert store.attempts(job.id) == 0
    assert store.begin(job.id, 1)
    assert not store.begin(job.id, 1)
    assert store.goes_on(job.id, 1)
    assert store.begin(job.id, 2)
    assert not store.goes_on(job.id, 1)
    assert store.goes_on(job.id, 2)
    assert store.attempts(job.id) == 2
    store.end(job.id)
    assert not store.goes_on(job.id, 2)


def test_marks_without_a_job_and_of_ended_jobs_are_cleared(store, new_job):
    orphan, ended, waiting = new_job(), new_job(), new_job()
    store.add(ended)
    store.add(waiting)
    store.end(ended.id)
    # As a death between the two writes leaves them.
    for job in (orphan, ended):
        storage.write_atomic(storage.join(store.url, "open", job.id), b"")
    assert [job.id for job in store.unfinished()] == [waiting.id]
    assert list(storage.list_files(storage.join(store.url, "open"))) == [storage.join(store.url, "open", waiting.id)]


def test_deleting_leaves_nothing(store, new_job):
    job = new_job()
    store.add(job)
    store.begin(job.id, 1)
    store.set_progress(job.id, Progress(steps_done=0, steps_total=1, units_done=0))
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
