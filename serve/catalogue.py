"""The models of an endpoint as its gateways know them: which one a request means, and which version makes it."""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress

from rayramid.models.card import load_card
from rayramid.models.errors import UserError
from rayramid.serve.errors import ApiError, bad_request
from rayramid.serve.job import Job, Model
from rayramid.serve.releases import Releases, Version

# A release counts so much later at the latest.
REFRESH_S = 2.0


class Catalogue:
    """Models by name, as they are released now.

    Args:
        names: of the models, the default one first.
        releases: which versions the names stand for.
    """

    def __init__(self, names: Sequence[str], releases: Releases) -> None:
        self._names = names
        self._releases = releases
        self._refreshed = -math.inf
        self._refreshing = asyncio.Lock()
        self._known: dict[tuple[str, Version], Model] = {}

    async def choose(self, name: str | None, job_id: str) -> Model:
        """The model that a new job is made by.

        Raises:
            ApiError: 404 for a name that is not served.
        """
        chosen = name or self._names[0]
        if chosen not in self._names:
            raise unknown_model(chosen, self._names)
        await self._refresh()
        return await self._model(chosen, self._releases.newest(chosen).choose(job_id))

    async def pinned(self, job: Job) -> Model:
        """The model that made a job, in its version.

        Raises:
            ApiError: 400 if that version is not there any more.
        """
        await self._refresh()
        version = self._releases.find(job.model, job.model_version)
        if version is not None:
            with suppress(UserError):
                return await self._model(job.model, version)
        message = f"{job.id} was made by version {job.model_version} of {job.model}, which is not there any more."
        raise bad_request(message, "video", "model_changed")

    async def offered(self) -> list[Model]:
        """What every name stands for, canaries apart."""
        await self._refresh()
        return [await self._model(name, self._releases.newest(name).stable) for name in self._names]

    async def _model(self, name: str, version: Version) -> Model:
        if (name, version) not in self._known:
            card = await asyncio.to_thread(load_card, version.folder)
            self._known[name, version] = Model(name=name, version=version.id, card=card)
        return self._known[name, version]

    async def _refresh(self) -> None:
        async with self._refreshing:
            if time.monotonic() - self._refreshed >= REFRESH_S:
                await asyncio.to_thread(self._releases.refresh)
                self._refreshed = time.monotonic()


def unknown_model(name: str, names: Sequence[str]) -> ApiError:
    """404, as OpenAI answers for a model that is not there."""
    message = f"The model {name!r} does not exist here; there are {', '.join(names)}."
    return ApiError(404, message, param="model", code="model_not_found")
