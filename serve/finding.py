"""Videos and their jobs by id; what is not there, or is somebody else's, is a 404."""

import asyncio

from rayramid.serve.access import Caller
from rayramid.serve.errors import not_found
from rayramid.serve.job import ID_PATTERN, Job
from rayramid.serve.store import Store
from rayramid.serve.wire import Video


async def find_video(store: Store, caller: Caller, video_id: str, param: str = "video_id") -> Video:
    """A video as clients see it now; ApiError 404 naming `param` if the caller has none."""
    job = await find_job(store, caller, video_id, param)
    return await asyncio.to_thread(store.shown, job)


async def find_job(store: Store, caller: Caller, video_id: str, param: str = "video_id") -> Job:
    """A video's job as it was asked for; ApiError 404 naming `param` if the caller has none."""
    job = await asyncio.to_thread(store.job, video_id) if ID_PATTERN.fullmatch(video_id) else None
    if job is None or not caller.owns(job):
        raise not_found(video_id, param)
    return job
