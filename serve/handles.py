"""Other deployments of an endpoint, behind their handles."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from rayramid.serve.admission import Admission
from rayramid.serve.job import Job, Standing
from rayramid.serve.scheduler import UnavailableError
from rayramid.serve.spec import KeyLimits

# How long a gateway waits for a broker that died to be replaced.
PATIENCE_S = 30.0
RETRY_S = 0.2


class RemoteBroker:
    """The broker behind its handle; one that died is asked again when Serve has started another."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        # Over gRPC from process to process, past Ray's object store: half the work for a question.
        self._direct = handle.options(_by_reference=False)

    async def submit(self, job: Job, limits: KeyLimits) -> Admission:
        """Admit a job."""
        return await self._ask(lambda: self._direct.submit.remote(job, limits))

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        await self._ask(lambda: self._direct.cancel.remote(job_id))

    async def delete(self, job_id: str) -> None:
        """Forget a job."""
        await self._ask(lambda: self._direct.delete.remote(job_id))

    async def events(self, job_id: str) -> AsyncGenerator[Standing, None]:
        """Where a job stands."""
        try:
            async with aclosing(told_by(self._handle.events, job_id)) as told:
                async for standing in told:
                    yield standing
        except RayActorError as error:
            raise UnavailableError from error

    async def ready(self) -> None:
        """Return once a sampler answers."""
        await self._ask(self._direct.ready.remote)

    async def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        return await question()
                    except RayActorError:
                        await asyncio.sleep(RETRY_S)
        except TimeoutError as error:
            raise UnavailableError from error


async def told_by(method: DeploymentHandle, *arguments: object) -> AsyncGenerator[Any, None]:
    """What a generator of another deployment yields; closing this one ends it there."""
    told = method.options(stream=True).remote(*arguments)
    try:
        async for each in told:
            yield each
    except (asyncio.CancelledError, GeneratorExit):
        told.cancel()
        raise
