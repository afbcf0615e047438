"""Gateways that listen themselves, for an endpoint that is reached through one machine.

Serve's proxies answer on every node of a cluster, wherever gateways run, and cost a request more than all the rest of
its way. An endpoint whose gateways are where its clients connect does without them.
"""

import asyncio
import socket
from collections.abc import Sequence

import uvicorn
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from rayramid.serve.replicas import Gateway
from rayramid.serve.spec import ServeSpec

# Connections that wait to be taken.
BACKLOG = 2048
# Longer than clients keep an idle connection, so that none sends on one that is just being closed.
IDLE_S = 90
# For answers that are under way when the endpoint ends.
LAST_WORDS_S = 1


class Listener:
    """Answers HTTP by an app, on the event loop that this is made on.

    Args:
        app: answers.
        host: address to listen at.
        port: which other listeners of this machine may share: the kernel shares connections out among those that live.

    Raises:
        OSError: something else listens there.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        shared = socket.create_server((host, port), backlog=BACKLOG, reuse_port=True)
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=LAST_WORDS_S,
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve([shared]))

    @property
    def listens(self) -> bool:
        """Whether it still does."""
        return not self._serving.done()

    async def close(self) -> None:
        """Take nothing new, and return when the answers under way have gone out or took too long."""
        self._server.should_exit = True
        await self._serving


class ListeningGateway(Gateway):
    """Answers HTTP at the spec's address, which all gateways of a machine share."""

    def __init__(self, spec: ServeSpec, names: Sequence[str], broker: DeploymentHandle) -> None:
        super().__init__(spec, names, broker)
        # Serve calls constructors on the event loop that stays.
        self._listener = Listener(self._app, spec.host, spec.port)

    async def check_health(self) -> None:
        """Serve replaces this replica if it listens no more."""
        if not self._listener.listens:
            raise RuntimeError("the HTTP server has ended")

    async def __del__(self) -> None:
        """Serve awaits this before it ends the process."""
        await self._listener.close()
