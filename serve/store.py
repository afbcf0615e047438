"""Where jobs and their videos live: a folder or S3. Nothing about a job is true that is not in here.

    requests/<id>.json            the job, written once
    open/<id>                     exists until the job has ended; what a new broker looks through
    videos/<id>/image             the first frame, if one was given
    videos/<id>/attempts/<n>      created by the worker that begins attempt n; a later one ends an earlier one
    videos/<id>/progress.json     written by the running attempt alone
    videos/<id>/init.mp4, segments/<unit>.m4s    the video so far
    videos/<id>/session.safetensors              the state after the newest unit
    videos/<id>/video.mp4, thumbnail.webp        the result
    videos/<id>/outcome.json      created once; whoever comes first decides how the job ended

Every file has one writer or is created conditionally, so no update is lost, whoever dies or comes back when.
"""

import time
from collections.abc import Iterator
from pathlib import PurePosixPath

from rayramid.models import storage
from rayramid.serve.job import Job, Outcome, Progress, video_of
from rayramid.serve.wire import Video, VideoError


class Store:
    """Jobs and videos under one URL. All methods block; call them in a thread from async code."""

    def __init__(self, url: str) -> None:
        self.url = url

    def at(self, job_id: str, *names: str) -> str:
        """URL of a file that belongs to a video."""
        return storage.join(self.url, "videos", job_id, *names)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def add(self, job: Job) -> None:
        """Keep a new job. The mark comes first: a job without one would wait for ever."""
        storage.write_atomic(self._open(job.id), b"")
        storage.write_atomic(self._request(job.id), job.model_dump_json().encode())

    def job(self, job_id: str) -> Job | None:
        """The job as it was asked for."""
        text = _read(self._request(job_id))
        return Job.model_validate_json(text) if text is not None else None

    def video(self, job_id: str) -> Video | None:
        """The job as clients see it now."""
        job = self.job(job_id)
        return video_of(job, self.progress(job_id), self.outcome(job_id)) if job else None

    def newest_first(self) -> list[str]:
        """Ids of all jobs."""
        ids = (PurePosixPath(url).stem for url in storage.list_files(storage.join(self.url, "requests"), ".json"))
        return sorted(ids, reverse=True)

    def delete(self, job_id: str) -> None:
        """Forget a job and its files; the request goes first, so that no reader meets half a job."""
        storage.delete(self._request(job_id))
        storage.delete(self._open(job_id))
        for url in list(storage.list_files(self.at(job_id))):
            storage.delete(url)

    def is_open(self, job_id: str) -> bool:
        """Whether the job has yet to end."""
        return storage.exists(self._open(job_id))

    # -- running ------------------------------------------------------------------------------------------------------

    def unfinished(self) -> Iterator[Job]:
        """Jobs that have not ended, oldest first; marks that death left behind are removed."""
        for url in list(storage.list_files(storage.join(self.url, "open"))):
            job_id = PurePosixPath(url).name
            job = self.job(job_id)
            if job is None or self.outcome(job_id) is not None:
                storage.delete(url)
            else:
                yield job

    def attempts(self, job_id: str) -> int:
        """How many attempts have begun."""
        return sum(1 for _ in storage.list_files(self.at(job_id, "attempts")))

    def begin(self, job_id: str, attempt: int) -> bool:
        """Claim an attempt; False if another worker has."""
        return storage.create(self.at(job_id, "attempts", f"{attempt:03}"), b"")

    def goes_on(self, job_id: str, attempt: int) -> bool:
        """Whether an attempt should continue: the job is wanted, has not ended, and no later attempt has begun."""
        return (
            storage.exists(self._request(job_id))
            and not storage.exists(self.at(job_id, "outcome.json"))
            and not storage.exists(self.at(job_id, "attempts", f"{attempt + 1:03}"))
        )

    def progress(self, job_id: str) -> Progress | None:
        """How far the job is; None while it waits."""
        text = _read(self.at(job_id, "progress.json"))
        return Progress.model_validate_json(text) if text is not None else None

    def set_progress(self, job_id: str, progress: Progress) -> None:
        """Only the running attempt calls this."""
        storage.write_atomic(self.at(job_id, "progress.json"), progress.model_dump_json().encode())

    def outcome(self, job_id: str) -> Outcome | None:
        """How the job ended; None before."""
        text = _read(self.at(job_id, "outcome.json"))
        return Outcome.model_validate_json(text) if text is not None else None

    def end(self, job_id: str, error: VideoError | None = None) -> Outcome:
        """End a job unless it has ended already; returns the outcome that holds."""
        mine = Outcome(status="failed" if error else "completed", ended_at=int(time.time()), error=error)
        created = storage.create(self.at(job_id, "outcome.json"), mine.model_dump_json().encode())
        storage.delete(self._open(job_id))
        theirs = None if created else self.outcome(job_id)
        return theirs or mine

    # -- media --------------------------------------------------------------------------------------------------------

    def image(self, job_id: str) -> str:
        """URL of the picture that the video starts with."""
        return self.at(job_id, "image")

    def init_segment(self, job_id: str) -> str:
        """URL of what players need before the first segment."""
        return self.at(job_id, "init.mp4")

    def segment(self, job_id: str, unit: int) -> str:
        """URL of one unit's part of the stream."""
        return self.at(job_id, "segments", f"{unit:06}.m4s")

    def _request(self, job_id: str) -> str:
        return storage.join(self.url, "requests", f"{job_id}.json")

    def _open(self, job_id: str) -> str:
        return storage.join(self.url, "open", job_id)


def _read(url: str) -> bytes | None:
    return storage.read_bytes(url) if storage.exists(url) else None
