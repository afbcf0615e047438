"""What a gateway asks of the broker, wherever that runs."""

from collections.abc import AsyncGenerator
from typing import Protocol

from rayramid.serve.admission import Admission
from rayramid.serve.job import Job, Standing
from rayramid.serve.spec import KeyLimits


class UnavailableError(Exception):
    """No broker answers; a new one will, in a moment."""


class Scheduler(Protocol):
    """All methods raise UnavailableError when the broker is gone for too long."""

    async def submit(self, job: Job, limits: KeyLimits) -> Admission:
        """Admit a job that its owner's limits allow, or say when to come back; asking again changes nothing."""

    async def cancel(self, job_id: str) -> None:
        """End a job."""

    async def delete(self, job_id: str) -> None:
        """Forget a job that has not ended; who watches it is told of no end."""

    def events(self, job_id: str) -> AsyncGenerator[Standing, None]:
        """Where a job stands, now and whenever that changes, until it has ended."""

    async def ready(self) -> None:
        """Return once a worker answers."""
