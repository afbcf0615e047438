"""Videos whose time is over are forgotten."""

import asyncio
import logging
import time

from rayramid.serve.store import Store

log = logging.getLogger(__name__)

SWEEP_S = 60.0


async def forget_expired(store: Store) -> None:
    """Delete ended jobs that the store has kept for as long as it should, again and again."""
    while True:
        for job_id in await asyncio.to_thread(lambda: list(store.expired(time.time()))):
            await asyncio.to_thread(store.delete, job_id)
            log.info("video expired", extra={"job": job_id})
        await asyncio.sleep(SWEEP_S)
