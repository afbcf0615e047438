"""Telling the broker how many samplers run, and starting one when there is work and none does."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ray import serve
from ray.exceptions import RayError

from rayramid.serve.broker import Broker

log = logging.getLogger(__name__)

LOOK_S = 1.0


class Staffing:
    """Watches an autoscaled deployment.

    Args:
        app: the application's name.
        deployment: the samplers'.
        broker: learns how many there are.
        wake: a request that a sampler answers; Serve starts one for it.
    """

    def __init__(
        self, app: str, deployment: str, broker: Broker, wake: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._app = app
        self._deployment = deployment
        self._broker = broker
        self._wake = wake
        self._waking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Look again and again; ends only when cancelled."""
        while True:
            try:
                running = await asyncio.to_thread(self._running)
            except RayError as error:
                # The controller is being replaced; samplers go on as they are.
                log.warning("samplers can't be counted", extra={"error": str(error)[:300]})
            else:
                self._broker.staff(running)
                if not running and self._broker.demand().jobs and (self._waking is None or self._waking.done()):
                    self._waking = asyncio.create_task(self._wake())
            await asyncio.sleep(LOOK_S)

    def _running(self) -> int:
        deployment = serve.status().applications[self._app].deployments[self._deployment]
        return deployment.replica_states.get("RUNNING", 0)
