"""Where jobs and their videos live: a folder or S3. Nothing about a job is true that is not in here.

    open/<id>.json                a job that has not ended, written once; what a new broker looks through
    ended/<id>.json               the same when it has
    owners/<owner>/<id>           an empty file: whose job it is, for listings
    webhooks/<id>.json            an event that is owed when the job has ended
    keys/<digest>.json            which job an Idempotency-Key stands for
    videos/<id>/image             the first frame, if one was given
    videos/<id>/control/attempt-<n>    created by the worker that begins attempt n; a later one ends an earlier one
    videos/<id>/control/pause-<n>      asks attempt n to leave off at its next unit's edge
    videos/<id>/control/outcome.json   created once; whoever comes first decides how the job ended
    videos/<id>/prompts/<unit>    what the unit shows, if that changes with it; created once, before the unit begins
    videos/<id>/progress.json     written by the running attempt alone
    videos/<id>/init.mp4, segments/<unit>.m4s    the video so far
    videos/<id>/latents/<unit>    the unit is finished; all that another worker needs to go on
    videos/<id>/video.mp4, thumbnail.webp, spritesheet.webp    the result

Every file has one writer or is created conditionally, so no update is lost, whoever dies or comes back when.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from rayramid.models import storage
from rayramid.models.stores.store import MissingError
from rayramid.serve.job import Job, Outcome, Progress, Record, created_ms, video_of
from rayramid.serve.wire import Video, VideoError


class Claim(Record):
    """The job that an `Idempotency-Key` stands for, and a digest of the request that it came with."""

    job_id: str
    request: str


@dataclass(frozen=True)
class Control:
    """What has been said about a job: attempts begun, whether it has ended, attempts asked to leave off."""

    attempts: int
    ended: bool
    paused: frozenset[int]


class Store:
    """Jobs and videos under one URL. All methods block; call them in a thread from async code.

    Args:
        url: a folder or an S3 prefix.
        keep_s: how long an ended job is kept; for ever when None.
        presign_s: how long the store's own URLs of videos are valid; it gives none when None.
    """

    def __init__(self, url: str, *, keep_s: float | None = None, presign_s: int | None = None) -> None:
        self.url = url
        self.keep_s = keep_s
        self.presign_s = presign_s

    def at(self, job_id: str, *names: str) -> str:
        """URL of a file that belongs to a video."""
        return storage.join(self.url, "videos", job_id, *names)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def add(self, job: Job) -> None:
        """Keep a new job."""
        storage.write_atomic(self._owned(job), b"")
        storage.write_atomic(self._open(job.id), job.model_dump_json().encode())

    def job(self, job_id: str) -> Job | None:
        """The job as it was asked for."""
        # One that ends in between is in the second place before it leaves the first.
        text = _read(self._ended(job_id)) or _read(self._open(job_id)) or _read(self._ended(job_id))
        return Job.model_validate_json(text) if text is not None else None

    def has(self, job_id: str) -> bool:
        """Whether the job was asked for and not deleted since."""
        return storage.exists(self._open(job_id)) or storage.exists(self._ended(job_id))

    def video(self, job_id: str) -> Video | None:
        """The job as clients see it now."""
        job = self.job(job_id)
        return self.shown(job) if job is not None else None

    def shown(self, job: Job) -> Video:
        """A job as clients see it now."""
        outcome = self.outcome(job.id)
        completed = outcome is not None and outcome.status == "completed"
        url = self.presigned(job.id, "video.mp4", "video/mp4") if completed else None
        return video_of(job, self.progress(job.id), outcome, keep_s=self.keep_s, url=url)

    def newest_first(self, owner: str | None = None) -> list[str]:
        """Ids of all jobs, or of one owner's."""
        if owner is not None:
            places = storage.list_files(storage.join(self.url, "owners", owner))
            return sorted((PurePosixPath(url).name for url in places), reverse=True)
        # In this order: a job that ends in between is seen twice, not overlooked.
        places = (storage.join(self.url, place) for place in ("open", "ended"))
        return sorted({PurePosixPath(url).stem for place in places for url in storage.list_files(place)}, reverse=True)

    def delete(self, job_id: str) -> None:
        """Forget a job and its files; the job goes first, so that no reader meets half of it."""
        job = self.job(job_id)
        storage.delete(self._open(job_id))
        storage.delete(self._ended(job_id))
        if job is not None:
            storage.delete(self._owned(job))
            if job.key is not None:
                self.release(job.key)
        storage.delete_tree(self.at(job_id))

    def expired(self, now: float) -> Iterator[str]:
        """Ids of the jobs whose time is over."""
        if self.keep_s is None:
            return
        for job_id in reversed(self.newest_first()):
            if created_ms(job_id) / 1000 + self.keep_s > now:
                return
            outcome = self.outcome(job_id)
            if outcome is not None and outcome.ended_at + self.keep_s <= now:
                yield job_id

    def claim(self, key: str, claim: Claim) -> Claim:
        """Let an idempotency key stand for a job; returns the claim that holds, an earlier one if there is any."""
        url = self._key(key)
        if storage.create(url, claim.model_dump_json().encode()):
            return claim
        return Claim.model_validate_json(storage.read_bytes(url))

    def release(self, key: str) -> None:
        """Let the key stand for nothing again."""
        storage.delete(self._key(key))

    # -- running ------------------------------------------------------------------------------------------------------

    def is_open(self, job_id: str) -> bool:
        """Whether the job has yet to end."""
        return storage.exists(self._open(job_id))

    def unfinished(self) -> Iterator[Job]:
        """Jobs that have not ended, oldest first; what death left of an end is done."""
        for url in list(storage.list_files(storage.join(self.url, "open"))):
            text = _read(url)
            if text is None:
                continue
            job = Job.model_validate_json(text)
            if self.outcome(job.id) is None:
                yield job
            else:
                self._move(job.id)

    def control(self, job_id: str) -> Control:
        """What has been said about a job, by one listing; nothing of a deleted one."""
        names = [PurePosixPath(url).name for url in storage.list_files(self.at(job_id, "control"))]
        numbers = {kind: [int(name.removeprefix(kind)) for name in names if name.startswith(kind)] for kind in _KINDS}
        return Control(len(numbers[ATTEMPT]), OUTCOME in names, frozenset(numbers[PAUSE]))

    def begin(self, job_id: str, attempt: int) -> bool:
        """Claim an attempt; False if another worker has. It is recorded with the unit at which it begins."""
        return storage.create(self._attempt(job_id, attempt), str(self.units(job_id)).encode())

    def tries(self, job_id: str, attempts: int) -> int:
        """How many attempts began where the job stands now: so often it has got no further."""
        now = str(self.units(job_id)).encode()
        return sum(storage.read_bytes(self._attempt(job_id, n)) == now for n in range(1, attempts + 1))

    def pause(self, job_id: str) -> None:
        """Ask the attempt that is running to leave off at its next unit's edge."""
        storage.write_atomic(self.at(job_id, "control", f"{PAUSE}{self.control(job_id).attempts:03}"), b"")

    def progress(self, job_id: str) -> Progress | None:
        """How far the job is; None while it waits."""
        text = _read(self.at(job_id, "progress.json"))
        return Progress.model_validate_json(text) if text is not None else None

    def set_progress(self, job_id: str, progress: Progress) -> None:
        """Only the running attempt calls this."""
        storage.write_atomic(self.at(job_id, "progress.json"), progress.model_dump_json().encode())

    def decide(self, job_id: str, unit: int, prompt: str | None) -> str | None:
        """Say which prompt begins at a unit, or that none does; the first to say anything is heard.

        Returns:
            what holds: `prompt`, or what was said before.
        """
        url = self.at(job_id, "prompts", f"{unit:06}")
        if storage.create(url, json.dumps(prompt).encode()):
            return prompt
        decided: str | None = json.loads(storage.read_bytes(url))
        return decided

    def change_prompt(self, job_id: str, first: int, units: int, prompt: str) -> int | None:
        """Let a prompt begin at the first of units `first` to `units` - 1 about which nothing was said; returns it."""
        said = json.dumps(prompt).encode()
        names = (self.at(job_id, "prompts", f"{unit:06}") for unit in range(first, units))
        return next((unit for unit, url in enumerate(names, start=first) if storage.create(url, said)), None)

    def outcome(self, job_id: str) -> Outcome | None:
        """How the job ended; None before."""
        text = _read(self.at(job_id, "control", OUTCOME))
        return Outcome.model_validate_json(text) if text is not None else None

    def end(self, job_id: str, error: VideoError | None = None) -> Outcome:
        """End a job unless it has ended already; returns the outcome that holds."""
        mine = Outcome(status="failed" if error else "completed", ended_at=int(time.time()), error=error)
        created = storage.create(self.at(job_id, "control", OUTCOME), mine.model_dump_json().encode())
        self._move(job_id)
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

    def latents(self, job_id: str, unit: int) -> str:
        """URL of one unit's latents; while it is there, the unit is finished."""
        return self.at(job_id, "latents", f"{unit:06}.safetensors")

    def units(self, job_id: str) -> int:
        """Finished units."""
        return sum(1 for _ in storage.list_files(self.at(job_id, "latents")))

    def presigned(self, job_id: str, name: str, media_type: str, *, method: str = "GET") -> str | None:
        """The store's own URL of a result, if it gives any out."""
        if self.presign_s is None:
            return None
        file_name = f"{job_id}{PurePosixPath(name).suffix}"
        return storage.presign(self.at(job_id, name), self.presign_s, media_type, file_name, method=method)

    def begin_with(self, job_id: str, source: str) -> None:
        """Copy what a finished video holds into a new job's folder, but for its results.

        Raises:
            MissingError: the source was deleted.
        """
        units = self.units(source)
        names = ["init.mp4", "thumbnail.webp"]
        names += [f"latents/{unit:06}.safetensors" for unit in range(units)]
        # The last segment may have been cut short, so the worker makes it again.
        names += [f"segments/{unit:06}.m4s" for unit in range(units - 1)]
        storage.copy_files(self.at(source), self.at(job_id), names)

    def _move(self, job_id: str) -> None:
        """Put the job with the ended ones."""
        text = _read(self._open(job_id))
        if text is not None:
            storage.write_atomic(self._ended(job_id), text)
            storage.delete(self._open(job_id))

    def _open(self, job_id: str) -> str:
        return storage.join(self.url, "open", f"{job_id}.json")

    def _ended(self, job_id: str) -> str:
        return storage.join(self.url, "ended", f"{job_id}.json")

    def _owned(self, job: Job) -> str:
        return storage.join(self.url, "owners", job.owner, job.id)

    def _key(self, key: str) -> str:
        return storage.join(self.url, "keys", f"{key}.json")

    def _attempt(self, job_id: str, attempt: int) -> str:
        return self.at(job_id, "control", f"{ATTEMPT}{attempt:03}")


OUTCOME = "outcome.json"
ATTEMPT, PAUSE = _KINDS = ("attempt-", "pause-")


def _read(url: str) -> bytes | None:
    try:
        return storage.read_bytes(url)
    except MissingError:
        return None
